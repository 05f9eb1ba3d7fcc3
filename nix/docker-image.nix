# The flake's `dockerImage`: a small system with Nix in it, in which one can work and build.
#
#   dockerImage.override { extraPkgs = [ pkgs.jq ]; users.alice = { uid = 1000; }; }
#
# It is also an example: nothing here but `buildLayer`, `buildImage` and files.
{ lib
, pkgs
, stowage
, name ? "nix"
, tag ? pkgs.nix.version
  # Packages of the root profile that have layers of their own: a list for each, from the bottom up.
, layerPkgs ? with pkgs; [ [ coreutils-full ] [ curl libxml2 sqlite ] [ gitMinimal ] ]
  # Further lists after these.
, extraLayerPkgs ? [ ]
  # The other packages of the root profile.
, defaultPkgs ? with pkgs; [
    bashInteractive
    cacert
    findutils
    gnugrep
    gnutar
    gzip
    iana-etc
    less
    man
    nix
    openssh
    wget
    which
  ]
, extraPkgs ? [ ]
  # True to put nixpkgs itself into the image, as a channel.
, bundleNixpkgs ? true
, channelName ? "nixpkgs"
, channelURL ? "https://nixos.org/channels/nixpkgs-unstable"
  # The registry by which Nix finds flakes: a file, or a directory with `flake-registry.json`.
, flake-registry ? null
  # Settings of nix.conf, in addition to those below; null leaves one out.
, nixConf ? { }
  # Users and groups in addition to root, nobody and Nix's own, or other settings for these. A user has uid,
  # gid, home, shell, description and groups. The home directory is made, and belongs to the user.
, users ? { }
, groups ? { }
  # The user of the container. The Nix store belongs to this user. The arguments have the names of those in Nix's own
  # docker.nix.
, uid ? 0
, gid ? uid
, uname ? if uid == 0 then "root" else "nix"
, gname ? if gid == 0 then "root" else uname
  # True to put glibc's loader into /lib64 (or /lib), where programs that are not from nixpkgs look for it.
, foreignPrograms ? false
  # More files for `/`, and modes and owners of files, as for buildImage.
, copyToRoot ? [ ]
, perms ? [ ]
  # Environment variables, in addition to those below; null leaves one out.
, env ? { }
  # Further parts of the image's configuration. Variables of `Env` are added to those above.
, config ? { }
, maxLayers ? 100
}:
let
  inherit (lib) concatMapStrings concatStringsSep mapAttrsToList optionalString recursiveUpdate;

  profilePkgs = lib.flatten (layerPkgs ++ extraLayerPkgs) ++ defaultPkgs ++ extraPkgs;
  stateDir = "/nix/var/nix";
  defaultProfile = "${stateDir}/profiles/default";
  bash = "${pkgs.bashInteractive}/bin/bash";

  # Users and groups

  check = import ./check-values.nix { inherit lib; } "dockerImage";
  givenUsers = check.users "users" users;
  givenGroups = check.groups "groups" groups;
  systemUser = settings: { home = "/var/empty"; shell = "/bin/false"; groups = [ ]; } // settings;
  buildUser = number: lib.nameValuePair "nixbld${toString number}" (systemUser {
    uid = 30000 + number;
    gid = 30000;
    groups = [ "nixbld" ];
    description = "Nix build user ${toString number}";
  });
  defaultUsers = lib.listToAttrs (map buildUser (lib.range 1 32)) // {
    root = { uid = 0; gid = 0; home = "/root"; shell = bash; groups = [ "root" ]; description = "System administrator"; };
    nobody = systemUser { uid = 65534; gid = 65534; shell = "${pkgs.shadow}/bin/nologin"; description = "Unprivileged account"; };
  };
  person = user: { gid = 65534; home = "/home/${user}"; shell = bash; groups = [ ]; description = ""; };
  isRoot = uid == 0;
  userHome = if isRoot then "/root" else "/home/${uname}";
  ownUser = lib.optionalAttrs (!isRoot) {
    ${uname} = (person uname) // { inherit uid gid; home = userHome; groups = [ gname ]; description = "Nix user"; };
  };
  allUsers = numbered "users" "uid" (defaultUsers // ownUser // lib.mapAttrs
    (user: settings: (defaultUsers.${user} or ownUser.${user} or (person user)) // settings)
    givenUsers);
  allGroups = numbered "groups" "gid" (recursiveUpdate
    ({ root.gid = 0; nixbld.gid = 30000; nobody.gid = 65534; } // lib.optionalAttrs (gid != 0) { ${gname} = { inherit gid; }; })
    givenGroups);

  # The accounts of an option, each of which must have a number, and no two the same one.
  numbered = option: number: accounts:
    let
      without = lib.filter (name: !(accounts.${name} ? ${number})) (lib.attrNames accounts);
      sharing = lib.filter (names: lib.length names > 1) (lib.attrValues
        (lib.groupBy (name: toString accounts.${name}.${number}) (lib.attrNames accounts)));
    in
    if without != [ ] then check.complain "${option}.${lib.head without}" "has no `${number}`"
    else if sharing != [ ] then
      check.complain option "have one number, ${toString accounts.${lib.head (lib.head sharing)}.${number}}, for ${toString (lib.head sharing)}"
    else accounts;

  passwd = mapAttrsToList
    (user: { uid, gid, home, shell, description, ... }:
      "${user}:x:${toString uid}:${toString gid}:${description}:${home}:${shell}")
    allUsers;
  shadow = mapAttrsToList (user: _: "${user}:!:1::::::") allUsers;
  membersOf = group: lib.attrNames (lib.filterAttrs (_: user: lib.elem group user.groups) allUsers);
  group = mapAttrsToList
    (group: { gid, members ? [ ], ... }: "${group}:x:${toString gid}:${concatStringsSep "," (lib.unique (membersOf group ++ members))}")
    allGroups;

  unknownGroups = lib.filter (group: !(allGroups ? ${group})) (lib.concatMap (user: user.groups) (lib.attrValues allUsers));

  homes = lib.filter ({ home, ... }: home != "/var/empty" && home != "/root") (lib.attrValues allUsers);

  # Nix

  # The elements of a list are separated by spaces.
  isScalar = value: lib.isInt value || lib.isStringLike value;
  nixConfValue = setting: value:
    if lib.isBool value then lib.boolToString value
    else
      toString (check.must (check.isIn "nixConf" setting) "a string, a number, true or false, or a list of strings"
        (value: isScalar value || lib.isList value && lib.all isScalar value)
        value);
  nixConfLines = mapAttrsToList (setting: value: "${setting} = ${nixConfValue setting value}") (check.present ({
    # A user other than root builds as that user.
    build-users-group = if isRoot then "nixbld" else "";
    # The container is already isolated.
    sandbox = false;
    trusted-public-keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  } // nixConf));

  # The manifest of the profile, which `nix-env` reads.
  manifest = pkgs.writeText "manifest.nix" ''
    [
    ${concatMapStrings (package:
      let outputs = package.outputsToInstall or package.meta.outputsToInstall or [ "out" ]; in ''
      {
        type = "derivation";
        name = "${package.name}";
        system = "${package.system}";
        outPath = "${package}";
        outputs = [ ${concatMapStrings (output: "\"${output}\" ") outputs}];
        ${concatMapStrings (output: "${output}.outPath = \"${lib.getOutput output package}\"; ") outputs}
        meta = { };
      }
    '') profilePkgs}]
  '';
  profile = pkgs.buildEnv {
    name = "root-profile";
    paths = profilePkgs;
    postBuild = "ln -s ${manifest} $out/manifest.nix";
  };
  channel = pkgs.runCommand "channel-${channelName}" { } (
    "mkdir $out\n" + optionalString bundleNixpkgs ''
      ln -s ${pkgs.path} $out/${channelName}
      echo '[ ]' > $out/manifest.nix
    ''
  );

  # Files that no package has

  etc = lib.mapAttrsToList (file: lines: pkgs.writeTextDir "etc/${file}" (concatMapStrings (line: line + "\n") lines)) {
    inherit group passwd shadow;
    os-release = [
      "NAME=Nix"
      "ID=nix"
      "VERSION_ID=${pkgs.nix.version}"
      "PRETTY_NAME=\"Nix ${pkgs.nix.version}\""
      "HOME_URL=https://nixos.org/"
    ];
    "nix/nix.conf" = nixConfLines;
  };
  system = pkgs.runCommand "system" { } ''
    mkdir $out
    cd $out
    mkdir -p run tmp var/tmp var/empty bin usr/bin etc/ssl/certs etc/pki/tls/certs root .${userHome}
    ln -s ${bash} bin/sh
    ln -s ${pkgs.coreutils-full}/bin/env usr/bin/env
    ln -s ${defaultProfile}/share usr/share
    # Distributions have the certificates under these names.
    for name in ssl/certs/ca-bundle.crt ssl/certs/ca-certificates.crt pki/tls/certs/ca-bundle.crt; do
      ln -s ${defaultProfile}/etc/ssl/certs/ca-bundle.crt "etc/$name"
    done
    ${optionalString foreignPrograms ''
      mkdir -p .${dirOf loader}
      for found in ${pkgs.glibc}/lib/${baseNameOf loader} ${pkgs.glibc}/lib/*/${baseNameOf loader}; do
        if [ -e "$found" ]; then ln -sf "$found" .${loader}; fi
      done
      test -e .${loader}
    ''}
    ${concatMapStrings ({ home, ... }: "mkdir -p .${home}\n") homes}

    mkdir -p .${stateDir}/profiles/per-user/${uname} .${stateDir}/gcroots
    ln -s ${profile} .${stateDir}/profiles/default-1-link
    ln -s default-1-link .${defaultProfile}
    ln -s ${channel} .${stateDir}/profiles/per-user/${uname}/channels-1-link
    ln -s channels-1-link .${stateDir}/profiles/per-user/${uname}/channels
    ln -s ${stateDir}/profiles .${stateDir}/gcroots/profiles

    cd .${userHome}
    mkdir -p .nix-defexpr
    ln -s ${defaultProfile} .nix-profile
    ln -s ${stateDir}/profiles/per-user/${uname}/channels .nix-defexpr/channels
    echo ${lib.escapeShellArg "${channelURL} ${channelName}"} > .nix-channels
    ${optionalString (flake-registry != null) ''
      registry=${flake-registry}
      if [ -d "$registry" ]; then registry=$registry/flake-registry.json; fi
      mkdir -p .cache/nix
      ln -s "$registry" .cache/nix/flake-registry.json
      ln -s "$registry" $out${stateDir}/gcroots/flake-registry.json
    ''}
  '';

  # The glibc to which programs of nixpkgs are linked.
  loader = {
    x86_64-linux = "/lib64/ld-linux-x86-64.so.2";
    aarch64-linux = "/lib/ld-linux-aarch64.so.1";
  }.${pkgs.stdenv.hostPlatform.system} or (throw "dockerImage: `foreignPrograms` is not known for ${pkgs.stdenv.hostPlatform.system}");

  # The image

  certificates = "${defaultProfile}/etc/ssl/certs/ca-bundle.crt";
  givenVariables = map (line: lib.head (lib.splitString "=" line)) (config.Env or [ ]);
  variable = name: value: toString (check.must (check.isIn "env" name) "a string or a number" isScalar value);
  environment = lib.mapAttrs variable (check.present ({
    USER = uname;
    PATH = "${userHome}/.nix-profile/bin:${defaultProfile}/bin:${defaultProfile}/sbin";
    MANPATH = "${userHome}/.nix-profile/share/man:${defaultProfile}/share/man";
    NIX_PATH = "${stateDir}/profiles/per-user/${uname}/channels:${userHome}/.nix-defexpr/channels";
    SSL_CERT_FILE = certificates;
    GIT_SSL_CAINFO = certificates;
    NIX_SSL_CERT_FILE = certificates;
  } // env));
in
# Names and numbers of the user of the container.
assert lib.all lib.isAttrs [ (check.account { } uname "uname" { }) (check.account { } gname "gname" { }) ];
assert lib.all lib.isInt [ (check.id "uid" uid) (check.id "gid" gid) ];
assert lib.assertMsg (unknownGroups == [ ])
  "dockerImage: `users` are in groups that `groups` lacks: ${toString unknownGroups}";
stowage.buildImage {
  inherit name tag maxLayers;
  layers = lib.foldl'
    (below: deps: below ++ [ (stowage.buildLayer { inherit deps; layers = below; }) ])
    [ ]
    (layerPkgs ++ extraLayerPkgs ++ lib.optional bundleNixpkgs [ channel ]);
  copyToRoot = etc ++ [ system copyToRoot ];
  initializeNixDatabase = true;
  nixUid = uid;
  nixGid = gid;
  perms = [
    { path = system; regex = "-system(/var)?/tmp$"; mode = "1777"; }
    { path = system; regex = "-system/root$"; mode = "0700"; }
  ] ++ lib.optionals (!isRoot) [
    # Directories to which Nix and the user write.
    { path = system; regex = "-system(/nix/.*|${lib.escapeRegex userHome}/.*)$"; mode = "0755"; inherit uid gid; }
    { path = system; regex = "/[.]nix-channels$"; mode = "0644"; }
  ] ++ map
    ({ home, uid, gid, ... }: {
      path = system;
      regex = "-system${lib.escapeRegex home}$";
      mode = "0700";
      inherit uid gid;
    })
    homes ++ lib.flatten [ perms ];
  config = recursiveUpdate
    {
      # Not by the home directory, which no other user may enter (`docker run --user`).
      Cmd = [ bash ];
      Env = mapAttrsToList (variable: value: "${variable}=${value}") (removeAttrs environment givenVariables) ++ config.Env or [ ];
      Labels = {
        "org.opencontainers.image.title" = name;
        "org.opencontainers.image.version" = pkgs.nix.version;
        "org.opencontainers.image.description" = "Nix and what one needs to work with it";
      };
    }
    (lib.optionalAttrs (!isRoot) { User = "${toString uid}:${toString gid}"; } // removeAttrs config [ "Env" ]);
  meta.description = "Container image with Nix, in which one can work and build";
}
