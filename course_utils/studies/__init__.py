"""Studies: many trainings of which a chapter shows the table, and repeats one.

store.py         a study, and the file that keeps what it measured
dimensions.py    how many latents digit and colour need
vaes.py          three kinds of latents on equal budgets
digit_code.py    what makes a code find the digits without labels
coded_vae.py     a joint VAE whose digits are given by such a code
translation.py   what makes a translation find the right colours

``python -m course_utils.studies translation --seeds 5`` runs what is missing.
"""
