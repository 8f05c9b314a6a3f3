"""The functions and objects that `import towernet` offers."""
