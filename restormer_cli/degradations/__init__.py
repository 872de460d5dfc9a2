"""Physics: how photographs are spoilt."""
