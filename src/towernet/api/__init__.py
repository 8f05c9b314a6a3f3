"""What the door opens to: the functions and objects that `import towernet` offers."""
