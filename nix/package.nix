{ lib, rustPlatform }:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
  # What the build reads, and nothing else: documentation rebuilds no image.
  inputs = [ "Cargo.toml" "Cargo.lock" "src" "crates" "benches" "tests" ];
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.cleanSourceWith {
    src = ../.;
    name = "${manifest.name}-source";
    filter = path: _type:
      let below = lib.removePrefix "${toString ../.}/" (toString path);
      in builtins.elem (builtins.head (lib.splitString "/" below)) inputs;
  };
  cargoLock.lockFile = ../Cargo.lock;

  # The other tests need Nix itself, or a container engine.
  cargoTestFlags = [ "--lib" ];

  meta = {
    inherit (manifest) description;
    license = with lib.licenses; [ asl20 mit ];
    mainProgram = manifest.name;
    platforms = lib.platforms.linux;
  };
}
