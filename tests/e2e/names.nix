# Images of packages that are given by their names.
{ pkgs }:
let
  inherit (pkgs.stowage) buildImageFromNames;
  inherit (pkgs) writeShellScriptBin;

  says = name: writeShellScriptBin name "echo ${name} is there";
  # What nixpkgs has besides the embedded packages: names that registries can't have, nasty ones,
  # and what is no package. Not by `pkgs.extend`: other packages are made of these sets.
  packageSet = pkgs // {
    moreutils = says "sponge";
    _7zz = says "7zz";
    python3Packages = { requests = says "requests"; "odd+name's" = says "odd"; broken = throw "it is broken"; };
    haskellPackages.hlint = says "hlint";
    HASKELLPACKAGES2.Hlint.twice-Nested = says "nested";
    removed = throw "removed: use git";
    unfree = { type = "derivation"; outPath = throw "its licence is unfree"; };
    number = 1;
  };

  # Packages that run anywhere, for a machine that is none of ours.
  anywhere = builtins.toFile "anywhere.nix" ''
    { system }:
    let set = import ${pkgs.path} { system = "${pkgs.stdenv.buildPlatform.system}"; }; in
    {
      inherit (set) bashInteractive coreutils cacert iana-etc;
      stdenv.hostPlatform = set.lib.systems.elaborate system;
      here = set.writeTextDir "system" system;
    }
  '';

  # Of what images of all names are asked for by.
  popularity = pkgs.stowage.popularity {
    packages = with pkgs; [ bashInteractive coreutils curl git hello jq openssh perl python3 cacert ];
  };
  popular = name: packages: buildImageFromNames { inherit name packages popularity; pkgs = packageSet; maxLayers = 12; };
in
{
  inherit packageSet anywhere;

  images = {
    shell = buildImageFromNames {
      name = "names/shell/git/curl";
      packages = ''[ "git", "shell", "curl" ]'';
      pkgs = packageSet;
    };

    # One program, and nothing asked for but that.
    hello = buildImageFromNames { name = "hello"; tag = "v1"; packages = [ "hello" ]; };

    # A container that root does not run.
    ofUser = buildImageFromNames {
      name = "of-user";
      tag = "v1";
      packages = [ "shell" ];
      pkgs = packageSet;
      user = { name = "app"; uid = 1001; };
    };

    inherit popularity;

    # Of a few layers, of which most are for what the set's packages have in common.
    popularOne = popular "popular/one" [ "git" ];
    popularOther = popular "popular/other" [ "shell" "curl" ];

    odd = buildImageFromNames {
      name = "odd";
      packages = [
        "python3packages.requests"
        "python3Packages.odd+name's"
        "haskellpackages.hlint"
        "haskellpackages2.hlint.twice-nested"
        "7zz"
        "BASH"
        "coreutils"
        "bash"
      ];
      pkgs = packageSet;
      maxLayers = 3;
      uid = 1000;
      gid = 100;
      extraCommands = ''
        mkdir home
        echo "the \"owner's\" own" > home/file
        rm etc/protocols
      '';
    };
  };
}
