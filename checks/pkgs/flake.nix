{
  description = "Debian packages behind nixpkgs' names: stands in for nixpkgs where only a Debian mirror is reachable";

  outputs = _:
    let lib = import ./lib.nix; in
    {
      inherit lib;
      # Debian's packages are fetched for one system alone. For the others the set can be
      # evaluated, so that `nix flake show` and `check` work, and not built.
      legacyPackages = lib.genAttrs lib.platforms.all (system: import ./. { inherit system; });
    };
}
