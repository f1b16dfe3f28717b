"""Labels, their files, and soft labels made of them; `db3kd.labelling` makes and exports them."""
