"""Studies: many trainings of which a chapter shows the table, and repeats one.

store.py         a study, and the file that keeps what it measured
vaes.py          three kinds of latents on equal budgets
digit_code.py    what makes a code find the digits without labels
translation.py   what makes a translation find the right colours

``python -m course_utils.studies translation --seeds 5`` runs what is missing.
"""
