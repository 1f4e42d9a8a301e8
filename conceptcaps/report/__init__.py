"""The page that a researcher reads, looks at and listens to before publishing."""
