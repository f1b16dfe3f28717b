"""`distill`: from a teacher, images and a query budget to a trained student and its report."""
