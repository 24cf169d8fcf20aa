# A board's U-Boot stays as it is where EDGEREPL_SLOTS does not ask for slots. One of another name takes the same
# lines in a .bbappend of the product's, with the file's path below this layer.
require ${@'u-boot-edgerepl.inc' if d.getVar('EDGEREPL_SLOTS') == 'rauc' else ''}
