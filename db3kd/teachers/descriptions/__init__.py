"""Description files of teachers: their keys, and how the teacher is opened."""
