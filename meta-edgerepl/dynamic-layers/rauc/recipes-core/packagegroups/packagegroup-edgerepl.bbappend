# meta-rauc's rauc-mark-good.service requires boot-complete.target, and comes after it.
# Added to the group's own list, out of its order.
# nooelint: oelint.vars.dependsordered
RDEPENDS:${PN} += "edgerepl-boot-check"
