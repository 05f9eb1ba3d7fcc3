{ lib
, stdenv
, runCommand
, rustPlatform
  # The compiler of `rustPlatform`.
, rustc ? null
  # True for only the builder that derivations run, which makes image specs and streams images. It changes
  # only if its own sources or one of its few crates change.
, onlyBuilder ? false
  # True to run the unit tests, which need more crates.
, withTests ? false
}:
let
  features = lib.optional (!onlyBuilder) "registry";
  crates = import ./crates.nix { inherit features; version = if onlyBuilder then "0.0.0" else null; };
  pname = if onlyBuilder then "stowage-builder" else "stowage";
  version = if onlyBuilder then "0.0.0" else crates.package.version;

  # The files that the build reads. Others, such as documentation, do not change images.
  inputs = [ "src" "crates" ] ++ lib.optionals withTests [ "Cargo.toml" "Cargo.lock" "benches" "fuzz" "tests" ];
  # The sources that features turn on, by `#[cfg(feature = "…")] mod …`.
  optionalSources = [
    "src/cli/arguments/registry.rs"
    "src/cli/arguments/report.rs"
    "src/cli/copy.rs"
    "src/cli/explain.rs"
    "src/cli/inspect.rs"
    "src/cli/interrupt/orders.rs"
    "src/cli/pages.rs"
    "src/cli/prefetch.rs"
    "src/cli/proof.rs"
    "src/cli/registry_options.rs"
    "src/cli/sbom.rs"
    "src/cli/serve.rs"
    "src/cli/structure.rs"
    "src/foreign.rs"
    "src/proof"
    "src/registry"
    "src/report"
    "src/target/directory"
    "src/target/name.rs"
    "src/target/program"
  ];
  # Without `lib.fileset`, for which Nix before 2.18 lacks a builtin.
  src = builtins.path {
    path = ../.;
    name = "${pname}-source";
    filter = path: _type:
      let below = lib.removePrefix "${toString ../.}/" (toString path); in
      builtins.elem (builtins.head (lib.splitString "/" below)) inputs
      && !(onlyBuilder && builtins.elem below optionalSources);
  };

  meta = {
    inherit (crates.package) description;
    license = with lib.licenses; [ asl20 mit ];
    mainProgram = "stowage";
  };

  program = rustPlatform.buildRustPackage ({
    inherit pname version src meta;
    passthru = { inherit src; cargoToml = crates.manifest; };
  } // lib.optionalAttrs (!onlyBuilder && stdenv.buildPlatform.canExecute stdenv.hostPlatform) {
    # The program itself writes these. A cross-compiled program can't be run.
    postInstall = ''
      share=$out/share
      mkdir -p $share/bash-completion/completions $share/fish/vendor_completions.d $share/zsh/site-functions
      $out/bin/stowage completions bash > $share/bash-completion/completions/stowage
      $out/bin/stowage completions fish > $share/fish/vendor_completions.d/stowage.fish
      $out/bin/stowage completions zsh > $share/zsh/site-functions/_stowage
      $out/bin/stowage man $share/man/man1
    '';
  } // (if withTests then {
    cargoLock.lockFile = ../Cargo.lock;
    # The other tests need Nix itself, or a container engine.
    cargoTestFlags = [ "--lib" ];
  } else {
    cargoLock.lockFileContents = crates.lock;
    postUnpack = ''
      cp --no-preserve=mode ${builtins.toFile "Cargo.toml" crates.manifest} "$sourceRoot/Cargo.toml"
      cp --no-preserve=mode ${builtins.toFile "Cargo.lock" crates.lock} "$sourceRoot/Cargo.lock"
    '';
    doCheck = false;
  }));

  # Derivations that use this package can be evaluated on all systems, for flakes of several systems.
  notHere = runCommand "${pname}-${version}"
    {
      inherit meta;
      passthru = { inherit pname version src; };
    } ''
    echo "error: stowage runs on Linux and macOS, and this is ${stdenv.hostPlatform.system}" >&2
    echo >&2
    echo "hint: build the image for x86_64-linux or aarch64-linux, on a Linux builder (\`builders\` in nix.conf)" >&2
    exit 1
  '';

  wanted = crates.workspace.package.rust-version;
in
if !(stdenv.hostPlatform.isLinux || stdenv.hostPlatform.isDarwin) then notHere
else if rustc != null && lib.versionOlder rustc.version wanted then
  throw ''
    stowage: this nixpkgs has Rust ${rustc.version}, and stowage is compiled by ${wanted} or newer.
    Use nixpkgs 25.11 or newer; or on this one, take the program from a newer one: docs/migration.md, "Older nixpkgs".''
else program
