{ lib }:

# Turns what was given for `copyToRoot`, `contents`, `deps` or `packages` into a list: one thing, a
# list, or lists in lists, as `lib.optional` and the like leave them; null is nothing.
given: lib.filter (path: path != null) (lib.flatten given)
