"""`python -m restormer_cli`, so that `accelerate launch -m restormer_cli train …` works."""

from restormer_cli.cli import main

if __name__ == "__main__":
    main()
