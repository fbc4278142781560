"""What the shared model is asked: one room per task, and what each of them is made of. No torch."""
