{ lib }:

# Whether the part of a name before its first slash can be a registry: a host name, an IPv4 address or an IPv6
# address in `[]`, perhaps with a port (the grammar is that of github.com/distribution/reference).
host:
let
  label = "([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])";
  parts = builtins.match "(\\[([^]]*)]|${label}(\\.${label})*)(:(.*))?" host;
  address = builtins.elemAt parts 1;
  port = lib.last parts;

  # Eight groups, of which `::` stands for one or more (RFC 4291, 2.2).
  isIPv6 = text:
    let
      ends = map (end: if end == "" then [ ] else lib.splitString ":" end) (lib.splitString "::" text);
      groups = lib.concatLists ends;
    in
    lib.all (group: builtins.match "[0-9A-Fa-f]{1,4}" group != null) groups
    && (if lib.length ends == 1 then lib.length groups == 8 else lib.length ends == 2 && lib.length groups < 8);

  isPort = text:
    let digits = builtins.match "0*([1-9][0-9]{0,4})" text; in
    digits != null && lib.toInt (lib.head digits) <= 65535;
in
parts != null && (address == null || isIPv6 address) && (port == null || isPort port)
