# The part of nixpkgs' `lib` that nix/ and this set use, by the same names and with the
# same meaning.
let
  lib = base // import ./lib-packages.nix lib // import ./modules.nix lib;

  base = rec {
    inherit (builtins) add all any attrNames attrValues baseNameOf catAttrs compareVersions concatLists concatMap
      concatStringsSep deepSeq elem elemAt filter foldl' fromJSON genList getAttr groupBy
      hasAttr head intersectAttrs isAttrs isBool isFloat isInt isList isPath isString length lessThan
      listToAttrs mapAttrs match partition readFile removeAttrs replaceStrings seq sort split splitVersion
      stringLength substring tail toJSON toString trace tryEval typeOf bitAnd bitOr bitXor pathExists sub;

    # Functions
    id = x: x;
    const = x: _: x;
    flip = f: a: b: f b a;
    pipe = foldl' (value: f: f value);
    fix = f: let x = f x; in x;
    extends = overlay: f: final: let prev = f final; in prev // overlay final prev;
    composeExtensions = f: g: final: prev:
      let applied = f final prev; in applied // g final (prev // applied);
    composeManyExtensions = foldr composeExtensions (_: _: { });
    toFunction = f: if isFunction f then f else _: f;
    # A set with `__functor` is a function too, and can say its own arguments.
    isFunction = f: builtins.isFunction f || (f ? __functor && isFunction (f.__functor f));
    functionArgs = f: if f ? __functor then f.__functionArgs or (functionArgs (f.__functor f)) else builtins.functionArgs f;
    setFunctionArgs = f: arguments: { __functor = _: f; __functionArgs = arguments; };
    fix' = f: let x = f x // { __unfix__ = f; }; in x;
    makeExtensible = makeExtensibleWithCustomName "extend";
    makeExtensibleWithCustomName = name: f:
      fix' (final: f final // { ${name} = overlay: makeExtensibleWithCustomName name (extends overlay f); });
    mapNullable = f: x: if x == null then null else f x;
    or = a: b: a || b;
    and = a: b: a && b;
    xor = a: b: a != b;
    concat = a: b: a ++ b;
    mergeAttrs = a: b: a // b;

    # Trivial
    warn = message: builtins.trace "warning: ${message}";
    warnIf = condition: message: if condition then warn message else id;
    warnIfNot = condition: warnIf (!condition);
    throwIf = condition: message: if condition then throw message else id;
    throwIfNot = condition: throwIf (!condition);
    assertMsg = condition: message: condition || throw message;
    traceVal = x: trace x x;
    traceValSeq = x: trace (deepSeq x x) x;
    traceSeq = x: trace (deepSeq x x);
    inNixShell = builtins.getEnv "IN_NIX_SHELL" != "";
    toHexString = number:
      let digit = substring (mod number 16) 1 "0123456789ABCDEF"; in
      if number < 16 then digit else toHexString (number / 16) + digit;
    importJSON = path: fromJSON (readFile path);
    importTOML = path: builtins.fromTOML (readFile path);
    min = a: b: if a < b then a else b;
    max = a: b: if a > b then a else b;
    mod = a: b: a - b * (a / b);
    boolToString = value: if value then "true" else "false";
    versionAtLeast = a: b: compareVersions a b >= 0;
    versionOlder = a: b: compareVersions a b < 0;
    fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    fakeSha256 = concatStrings (genList (_: "0") 64);

    # Lists
    singleton = x: [ x ];
    foldr = f: nil: list: if list == [ ] then nil else f (head list) (foldr f nil (tail list));
    foldl = foldl';
    optional = condition: x: if condition then [ x ] else [ ];
    optionals = condition: xs: if condition then xs else [ ];
    toList = x: if isList x then x else [ x ];
    flatten = x: if isList x then concatMap flatten x else [ x ];
    imap0 = f: list: genList (n: f n (elemAt list n)) (length list);
    imap1 = f: imap0 (n: f (n + 1));
    range = first: last: if first > last then [ ] else genList (n: first + n) (last - first + 1);
    reverseList = list: let n = length list; in genList (i: elemAt list (n - i - 1)) n;
    last = list: elemAt list (length list - 1);
    init = list: take (length list - 1) list;
    take = count: sublist 0 count;
    drop = count: list: sublist count (length list) list;
    sublist = start: count: list:
      let n = length list; in genList (i: elemAt list (start + i)) (max 0 (min count (n - start)));
    dropEnd = count: list: take (length list - count) list;
    takeEnd = count: list: drop (max 0 (length list - count)) list;
    forEach = list: f: map f list;
    count = predicate: list: length (filter predicate list);
    fold = foldr;
    intersperse = separator: list:
      if length list < 2 then list else [ (head list) separator ] ++ intersperse separator (tail list);
    sortOn = key: sort (a: b: key a < key b);
    findSingle = predicate: default: multiple: list:
      let found = filter predicate list; in
      if found == [ ] then default else if length found > 1 then multiple else head found;
    allUnique = list: length (unique list) == length list;
    cartesianProduct = set: foldl'
      (products: name: concatMap (product: map (value: product // { ${name} = value; }) set.${name}) products)
      [{ }]
      (attrNames set);
    unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
    subtractLists = removed: filter (x: !(elem x removed));
    intersectLists = a: filter (x: elem x a);
    remove = x: filter (y: y != x);
    findFirst = predicate: default: list:
      let found = filter predicate list; in if found == [ ] then default else head found;
    zipListsWith = f: a: b: genList (i: f (elemAt a i) (elemAt b i)) (min (length a) (length b));
    zipLists = zipListsWith (fst: snd: { inherit fst snd; });
    mutuallyExclusive = a: b: intersectLists a b == [ ];

    # Strings
    concatStrings = concatStringsSep "";
    concatMapStrings = f: list: concatStrings (map f list);
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    concatImapStringsSep = separator: f: list: concatStringsSep separator (imap1 f list);
    concatLines = concatMapStrings (line: line + "\n");
    concatImapStrings = f: list: concatStrings (imap1 f list);
    join = concatStringsSep;
    fileContents = path: removeSuffix "\n" (readFile path);
    trim = text: let found = match "[[:space:]]*(.*[^[:space:]])[[:space:]]*" text; in if found == null then "" else head found;
    toInt = text:
      let found = match "[[:space:]]*(-?[0-9]+)[[:space:]]*" text; in
      if found == null then throw "toInt: ${toJSON text} is not a number"
      else if match "-?0[0-9]+" (head found) != null then throw "toInt: ${toJSON text} may be octal or decimal"
      else fromJSON (head found);
    toIntBase10 = text: fromJSON (head (match "[[:space:]]*0*([0-9]+)[[:space:]]*" text));
    escapeXML = replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
    stringAsChars = f: text: concatMapStrings f (stringToCharacters text);
    replaceChars = replaceStrings;
    toShellVar = name: value:
      if isAttrs value && !isStringLike value then
        "declare -A ${name}=(${concatStringsSep " " (mapAttrsToList (key: v: "[${escapeShellArg key}]=${escapeShellArg v}") value)})"
      else if isList value then "declare -a ${name}=(${escapeShellArgs value})"
      else "${name}=${escapeShellArg value}";
    toShellVars = set: concatStringsSep "\n" (mapAttrsToList toShellVar set);
    enableFeature = condition: feature: "--${if condition then "enable" else "disable"}-${feature}";
    withFeature = condition: feature: "--${if condition then "with" else "without"}-${feature}";
    optionalString = condition: text: if condition then text else "";
    stringToCharacters = text: genList (i: substring i 1 text) (stringLength text);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let from = stringLength text - stringLength suffix; in
      from >= 0 && substring from (stringLength text) text == suffix;
    hasInfix = infix: text: length (splitString infix text) > 1;
    removePrefix = prefix: text:
      if hasPrefix prefix text then substring (stringLength prefix) (stringLength text) text else text;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    escape = characters: replaceStrings characters (map (c: "\\${c}") characters);
    escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
    splitString = separator: text:
      map (addContextFrom text) (filter isString (split (escapeRegex (toString separator)) (toString text)));
    addContextFrom = source: target: substring 0 0 source + target;
    upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
    toLower = replaceStrings upperChars lowerChars;
    toUpper = replaceStrings lowerChars upperChars;
    fixedWidthString = width: filler: text:
      if stringLength text >= width then text else fixedWidthString width filler (filler + text);
    fixedWidthNumber = width: number: fixedWidthString width "0" (toString number);
    escapeShellArg = argument:
      let text = toString argument; in
      if match "[[:alnum:],._+:@%/-]+" text != null then text else "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    escapeNixString = text: escape [ "$" ] (toJSON text);
    makeSearchPath = below: paths: concatMapStringsSep ":" (path: "${path}/${below}") (filter (path: path != null) paths);
    makeBinPath = makeSearchPath "bin";
    makeLibraryPath = makeSearchPath "lib";
    getName = package: if isString package then (parseDrvName package).name else package.pname or (parseDrvName package.name).name;
    getVersion = package: if isString package then (parseDrvName package).version else package.version or (parseDrvName package.name).version;
    inherit (builtins) parseDrvName;
    isStorePath = x: isStringLike x && dirOf (toString x) == builtins.storeDir;
    isStringLike = x: isString x || builtins.isPath x || x ? outPath || x ? __toString;
    sanitizeDerivationName = name:
      concatMapStrings (part: if isList part then "-" else part) (split "[^[:alnum:]+._?=-]+" name);
    inherit (builtins) dirOf;

    # Attribute sets
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    mapAttrsFlatten = mapAttrsToList;
    attrsToList = mapAttrsToList nameValuePair;
    mapAttrsRecursive = mapAttrsRecursiveCond (_: true);
    mapAttrsRecursiveCond = condition: f:
      let
        below = path: mapAttrs (name: value:
          if isAttrs value && condition value then below (path ++ [ name ]) value else f (path ++ [ name ]) value);
      in
      below [ ];
    collect = predicate: set:
      if predicate set then [ set ] else if isAttrs set then concatMap (collect predicate) (attrValues set) else [ ];
    foldAttrs = f: nil: sets: zipAttrsWith (_: foldr f nil) sets;
    zipAttrs = zipAttrsWith (_: values: values);
    concatMapAttrs = f: set: mergeAttrsList (mapAttrsToList f set);
    mergeAttrsList = foldl' (a: b: a // b) { };
    filterAttrs = predicate: set:
      listToAttrs (concatMap (name: optional (predicate name set.${name}) (nameValuePair name set.${name})) (attrNames set));
    optionalAttrs = condition: set: if condition then set else { };
    attrByPath = path: default: set:
      if path == [ ] then set
      else if hasAttr (head path) set then attrByPath (tail path) default set.${head path}
      else default;
    hasAttrByPath = path: set: path == [ ] || (hasAttr (head path) set && hasAttrByPath (tail path) set.${head path});
    getAttrFromPath = path: attrByPath path (throw "cannot find attribute `${concatStringsSep "." path}'");
    setAttrByPath = path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
    recursiveUpdate = a: b:
      a // mapAttrs (name: value: if isAttrs value && isAttrs (a.${name} or null) then recursiveUpdate a.${name} value else value) b;
    zipAttrsWith = f: sets:
      genAttrs (unique (concatMap attrNames sets)) (name: f name (builtins.catAttrs name sets));
    getOutput = output: package: package.${output} or package.out or package;
    getBin = getOutput "bin";
    getLib = getOutput "lib";
    getDev = getOutput "dev";
    getMan = getOutput "man";
    getExe = package: getExe' package (package.meta.mainProgram or (getName package));
    getExe' = package: program: "${getBin package}/bin/${program}";
    isDerivation = value: value.type or null == "derivation";
    mapDerivationAttrset = f: set: mapAttrs (_: value: if isDerivation value then f value else value) set;

    # nixpkgs has these as sets too.
    asserts = lib;
    debug = lib;
    fixedPoints = lib;
    strings = lib;
    lists = lib;
    attrsets = lib;
    trivial = lib;
    customisation = lib;
    sources = lib;
    meta = lib;
    versions = {
      major = version: head (splitVersion version);
      majorMinor = version: concatStringsSep "." (take 2 (splitVersion version));
    };
  };
in
lib
