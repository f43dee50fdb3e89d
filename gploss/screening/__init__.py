"""Looking at losses before anything is trained."""
