{ lib, git, nix, stowage, writeShellScriptBin }:

# `stowage serve` with these functions, and with Nix and git for machines without them.
writeShellScriptBin "stowage-serve" ''
  export PATH=''${PATH:+$PATH:}${lib.makeBinPath [ nix git ]}
  export STOWAGE_LIBRARY=''${STOWAGE_LIBRARY:-${./.}}
  exec ${stowage}/bin/stowage serve "$@"
''
