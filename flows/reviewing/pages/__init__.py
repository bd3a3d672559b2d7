"""A review in words: the verdict, a comment for a pull request, and a page."""
