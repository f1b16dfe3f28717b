"""`run_demo`: trains a teacher, distils a student from it, and compares strategies."""
