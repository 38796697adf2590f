"""``vcell monitor``: runs in the terminal, by what their run directories tell.

What is shown is worked out without a terminal, and tested so:

- `watch` reads run directories piece by piece and says how each run stands (`overview`);
- `view` holds what the user looks at and answers keys; `screens` turn both into lines of text, with
  `chart`, `summary` and `gpus` for what is drawn;
- `app` puts those lines on the terminal. It alone imports textual.

Nothing is written but the control files that a user asks for.
"""
