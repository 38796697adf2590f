"""Run vcell as ``python -m vcell``; also the target of the ``vcell`` script."""

from vcell.cli import main

if __name__ == "__main__":
    main()
