"""Output that two or more verbs share: terminal, tables, figures and HTML pages."""
