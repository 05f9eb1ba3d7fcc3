{ lib, baseImage, internalSpec, storePaths }:

# A store path with the accounts, directories, files and links that an image declares. The image has them at its root.
# The values are checked here as far as that is possible without the base image.
{
  # The function whose arguments these are, for messages.
  function
, name
, accounts ? { }
, directories ? { }
, files ? { }
, links ? { }
, tmp ? false
, user ? null
, config ? { }
, copyToRoot ? null
, contents ? null
, layers ? [ ]
, perms ? [ ]
, fromImage ? null
, directoryLinks ? "merge"
, architecture
}:
let
  inherit (lib) all attrNames concatStringsSep elem filter isAttrs isBool isInt isString mapAttrs;
  inherit (import ./check-values.nix { inherit lib; } "stowage.${function}")
    asText checked complain groups isIn isPath keys must nameOf present users;
  mode = option: must option "a string of octal digits such as `0755` or `1777`"
    (mode: isString mode && builtins.match "[0-7]{3,4}" mode != null);


  givenAccounts = keys "accounts" [ "users" "groups" ] accounts;
  checkedAccounts = {
    users = users "accounts.users" (givenAccounts.users or { });
    groups = groups "accounts.groups" (givenAccounts.groups or { });
  };

  owned = { inherit mode; user = asText nameOf; group = asText nameOf; };
  # Returns an absolute path without repeated or trailing slashes.
  place = option: path:
    let parts = filter (part: isString part && part != "" && part != ".") (builtins.split "/" path); in
    if !isPath path || elem ".." parts || parts == [ ] then complain option "must be an absolute path below `/`, without `..`"
    else if lib.hasPrefix "${builtins.storeDir}/" "/${concatStringsSep "/" parts}/" then complain option "is in the Nix store, where nothing else may be"
    else if lib.length parts > 1 && elem (lib.head parts) [ "dev" "proc" "sys" ] then
      complain option "is in /${lib.head parts}, in the place of which a container has the kernel's own files"
    else if lib.any (lib.hasPrefix ".wh.") parts then complain option "has a name that begins with `.wh.`, by which an image deletes files"
    else "/${concatStringsSep "/" parts}";
  placed = option: check: set:
    lib.listToAttrs (lib.mapAttrsToList
      (path: value: let at = isIn option path; in lib.nameValuePair (place at path) (check path at value))
      (must option "a set" isAttrs set));
  directory = _: option: value: present (checked option owned value);
  file = _: option: value:
    let
      text = option: must option "a string" isString;
      source = option: value: "${must option "a file of the store: a path or a derivation" (value: builtins.isPath value || lib.isStringLike value) value}";
      given = present (checked option (owned // { inherit text source; }) value);
    in
    if (given ? text) == (given ? source) then complain option "must have one of `text` and `source`" else given;
  link = _: option: value: "${must option "a string: what it leads to" (value: lib.isStringLike value && "${value}" != "") value}";

  ofTmp = lib.optionalAttrs (must "tmp" "true or false" isBool tmp) { "/tmp".mode = "1777"; };
  given = placed "directories" directory directories;
  options = {
    accounts = checkedAccounts;
    directories = ofTmp // mapAttrs (path: settings: (ofTmp.${path} or { }) // settings) given;
    files = placed "files" file files;
    links = placed "links" link links;
    user = if user == null then null else
    must "user" "a user, or a user and a group such as `app:data`, by name or number"
      (user: builtins.match "[A-Za-z0-9_][A-Za-z0-9_.$-]*(:[A-Za-z0-9_][A-Za-z0-9_.$-]*)?" user != null)
      (toString (must "user" "a string or a number" (value: isString value || isInt value) user));
    fromImage = baseImage fromImage;
    inherit architecture directoryLinks;
  };
  nothing = options.user == null
    && all (set: set == { }) [ options.directories options.files options.links checkedAccounts.users checkedAccounts.groups ];
  hasUser = isAttrs config && all (key: lib.toLower key != "user" || config.${key} == null) (attrNames config);
in
assert lib.assertMsg (user == null || hasUser)
  "stowage.${function}: `user` is what `config.User` will be: give one of them";
# Check all values, even if no file is made.
builtins.deepSeq options (if nothing then null else
internalSpec {
  inherit function perms fromImage;
  name = "${name}-system-files";
  kind = "systemFiles";
  roots = map (layer: "${layer}") (storePaths "${function}: `layers`" layers);
  copyToRoot = if contents != null then contents else copyToRoot;
  contents = null;
  inherit layers options;
})
