"""The boundary searches beside other attacks: distance for queries and for seconds."""
