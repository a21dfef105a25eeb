"""What each format of rows asks of its values: `builders` makes the row, `messages` and `judged` check its parts."""
