{
  description = "Debian packages behind nixpkgs' names: stands in for nixpkgs where only a Debian mirror is reachable";

  outputs = _: {
    lib = import ./lib.nix;
    legacyPackages.x86_64-linux = import ./. { system = "x86_64-linux"; };
  };
}
