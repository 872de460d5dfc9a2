"""What two or more verbs show with: terminal, tables, figures and HTML pages."""
