"""One folder a verb: cli (flags), types, plan, run, view (terminal), tables, page (HTML), document (JSON)."""
