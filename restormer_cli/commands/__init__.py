"""One verb each; no Typer, no rich: typed requests in, plain values out."""
