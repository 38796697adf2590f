"""``vcell monitor``: show runs in the terminal, from the files of their run directories.

The content is computed, and tested, without a terminal:

- `watch` reads run directories piece by piece and provides the state of each run (`overview`);
- `view` holds the state of the display and handles keys; `screens` convert both to lines of text,
  with `chart`, `summary` and `gpus`;
- `app` shows those lines on the terminal. Only this module imports textual.

Nothing is written except control files that the user requests.
"""
