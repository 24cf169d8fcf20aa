# meta-rauc's.
RAUC_BUNDLE_FORMAT ??= ""
RAUC_KEY_FILE ??= ""
RAUC_CERT_FILE ??= ""
