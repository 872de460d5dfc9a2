"""`ablate`: which design is better, trained and judged alike, with how sure that is."""
