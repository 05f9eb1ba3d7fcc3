{ lib }:

# Checks names of packages, which may come from any client, and finds them in a package set.
let
  complain = problem: throw "stowage.buildImageFromNames: ${problem}";

  maxNames = 100;
  # A longer name may be too much for Nix's regular expressions.
  maxLength = 255;

  check = name:
    if !lib.isString name then
      complain "`packages` must be a list of names, and one of these is of the type `${builtins.typeOf name}`"
    else if lib.stringLength name > maxLength then
      complain "a name of a package has ${toString (lib.stringLength name)} characters, and may have ${toString maxLength}"
    else if builtins.match "[A-Za-z0-9._+'-]+" name == null then
      complain "${builtins.toJSON name} is no name of a package, which has letters, digits, `.`, `_`, `+`, `-` and `'` only"
    else if lib.elem "" (lib.splitString "." name) then
      complain "${builtins.toJSON name} is no name of a package: nothing is before, between or behind a dot"
    else name;

  read = packages:
    let
      given =
        if !lib.isString packages then packages
        else if builtins.match "[[:space:]]*\\[.*" packages == null then null
        else builtins.addErrorContext "while reading `packages` as JSON, for stowage.buildImageFromNames:" (builtins.fromJSON packages);
    in
    if !lib.isList given then complain "`packages` must be a list of names, or such a list as JSON"
    else if lib.length given > maxNames then
      complain "an image may have ${toString maxNames} packages, not ${toString (lib.length given)}"
    else map check given;

  # The attributes by their names in lower case, since names in registries have no capitals. If names only
  # differ in case, the first one counts.
  byLowerCase = set: lib.listToAttrs
    (map (attribute: lib.nameValuePair (lib.toLower attribute) attribute) (lib.attrNames set));

  # Returns the attribute names that a name of a path stands for: a list of one, or none.
  attribute = set: lowerCase: name:
    let
      # No attribute begins with a digit, as `7zip` does.
      candidates = [ name ] ++ lib.optional (builtins.match "[0-9].*" name != null) "_${name}";
      inAnyCase = lib.concatMap
        (candidate: lib.optional (lowerCase ? ${lib.toLower candidate}) lowerCase.${lib.toLower candidate})
        candidates;
      exact = lib.filter (candidate: set ? ${candidate}) candidates;
    in
    lib.take 1 (if exact != [ ] then exact else inAnyCase);

  # Returns the value. If evaluating `test` throws, first prints a line on standard error that says that the
  # package set refuses the package: removed packages, broken ones and licences are such errors. `stowage
  # serve` looks for this line.
  refusable = name: test: value:
    if (builtins.tryEval (builtins.seq test null)).success then value
    else builtins.trace "stowage: unavailable package `${name}`" value;

  # Returns the package at a path of names: a list of one, or none. `lowerCase` is `byLowerCase set`.
  lookUp = set: lowerCase: path: lib.concatMap
    (attribute:
      let value = set.${attribute}; below = lib.tail path; in
      if below == [ ] then lib.optional (lib.isDerivation value) value
      else lib.optionals (lib.isAttrs value) (lookUp value (byLowerCase value) below))
    (attribute set lowerCase (lib.head path));
in
{
  # Splits the names into names of packages and the two special names: `arm64` and `shell`.
  parse = packages:
    let
      names = read packages;
      arm64 = lib.take 1 names == [ "arm64" ];
      others = if arm64 then lib.tail names else names;
    in
    assert lib.assertMsg (!lib.elem "arm64" others)
      "stowage.buildImageFromNames: `arm64` is the architecture of an image, and must be the first of `packages`";
    { inherit arm64; names = lib.unique others; };

  # Finds packages by their names. Returns the packages, and the names without a package.
  find = set:
    let lowerCase = byLowerCase set; in
    names:
    let
      look = name: {
        inherit name;
        found = builtins.addErrorContext "while looking for the package `${name}`:"
          (
            let packages = lookUp set lowerCase (lib.splitString "." name);
            in map (package: refusable name package.outPath package) (refusable name packages packages)
          );
      };
      looked = map look names;
    in
    {
      found = lib.concatMap (entry: entry.found) looked;
      missing = map (entry: entry.name) (lib.filter (entry: entry.found == [ ]) looked);
    };
}
