{ lib }:

# Checks values of arguments, and the accounts among them. `of` is the function whose arguments these are, for messages. A
# function whose first argument is `option` returns the value, or names the option in its error.
of:
let
  inherit (lib) attrNames concatStringsSep elem filter isAttrs isInt isList isString mapAttrs;
in
rec {
  complain = option: problem: throw "${of}: `${option}` ${problem}";
  show = value: if isString value then "`${value}`" else if isAttrs value then "a set" else if lib.isFunction value then "a function" else builtins.toJSON value;
  isIn = option: path: if builtins.match "[A-Za-z0-9_-]+" path != null then "${option}.${path}" else "${option}.\"${path}\"";

  # Checks a value, and returns it.
  must = option: kind: check: value: if check value then value else complain option "must be ${kind}, not ${show value}";
  keys = option: known: value:
    let
      set = must option "a set" isAttrs value;
      unknown = filter (key: !elem key known) (attrNames set);
    in
    if unknown == [ ] then set
    else complain (isIn option (lib.head unknown)) "is none of ${concatStringsSep ", " (map (key: "`${key}`") known)}";
  checked = option: kinds: value: mapAttrs
    (key: value:
      if value == null then null
      else kinds.${key} (isIn option key) value)
    (keys option (attrNames kinds) value);
  present = lib.filterAttrs (_: value: value != null);
  each = option: check: set: mapAttrs (name: value: check name (isIn option name) value) (must option "a set" isAttrs set);

  line = option: must option "a string of one line without a colon"
    (text: isString text && builtins.match "[^:\n]*" text != null);
  isPath = path: isString path && lib.hasPrefix "/" path && builtins.match "[^\n]*" path != null;
  fieldPath = option: value: line option (must option "an absolute path" isPath value);
  id = option: must option "a number from 0 to 4294967294" (number: isInt number && number >= 0 && number < 4294967295);
  nameOf = option: must option "a name of letters, digits, `_`, `.` and `-`, or a number"
    (name: isInt name && name >= 0 || isString name && builtins.match "[A-Za-z0-9_][A-Za-z0-9_.-]*[$]?" name != null);
  asText = check: option: value: toString (check option value);
  names = option: value: lib.imap0 (place: asText nameOf "${option}[${toString place}]") (must option "a list of names" isList value);
  account = kinds: name: option: value:
    if builtins.match "[A-Za-z_][A-Za-z0-9_.-]{0,30}[$]?" name == null
    then complain option "is no name of an account: up to 32 letters, digits, `_`, `.` and `-`, and no digit first"
    else present (checked option kinds value);

  users = option: each option
    (account { uid = id; gid = id; home = fieldPath; shell = fieldPath; groups = names; description = line; });
  groups = option: each option (account { gid = id; members = names; });
}
