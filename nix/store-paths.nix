{ lib }:

# Turns `copyToRoot`, `contents`, `deps` or `packages` into a list. The value is a single item, a list, or
# nested lists, as from `lib.optional`; null items are left out.
given: lib.filter (path: path != null) (lib.flatten given)
