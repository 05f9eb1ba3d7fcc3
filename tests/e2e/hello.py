print("hello from a path of the flake")
