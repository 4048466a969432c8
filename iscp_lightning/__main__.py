"""Entry of `python -m iscp_lightning`."""

from iscp_lightning.cli import main

if __name__ == "__main__":
    main()
