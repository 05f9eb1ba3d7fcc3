{ lib }:

# Whether the parts of a name between its slashes are those of a repository (distribution-spec, "Pulling
# manifests"; the grammar is that of github.com/distribution/reference).
components:
components != [ ]
  && lib.all (component: builtins.match "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*" component != null) components
