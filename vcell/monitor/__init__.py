"""``vcell monitor``: show runs in the terminal, from the files of their run directories.

What is shown is computed, and tested, without a terminal:

- `watch` reads run directories piece by piece and gives the state of each run (`overview`);
- `view` holds what the user looks at and answers keys; `screens` turn both into lines of text, with
  `chart`, `summary` and `gpus` for what is drawn;
- `app` puts those lines on the terminal. It alone imports textual.

Nothing is written but the control files that a user asks for.
"""
