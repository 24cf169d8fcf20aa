# Chooses a slot, takes one attempt from it, and boots it. RAUC's back end `uboot` sets the same variables, and
# gives a slot that was marked good its attempts back.
#
# To be adapted to the board: the console, and what is loaded from the slot. The device tree is the one that U-Boot
# itself was given. A kernel that panics reboots; for one that hangs, or waits for its root for ever, the hardware's
# watchdog has to run from here on.

test -n "${devtype}" || setenv devtype mmc
test -n "${devnum}" || setenv devnum 0
test -n "${console}" || setenv console ttyAMA0

test -n "${BOOT_ORDER}" || setenv BOOT_ORDER A B
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

setenv chosen none
for slot in ${BOOT_ORDER}; do
    if test ${chosen} = none -a ${slot} = A -a 0x${BOOT_A_LEFT} -gt 0; then
        setenv chosen A
        setenv partition root-a
        setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
    fi
    if test ${chosen} = none -a ${slot} = B -a 0x${BOOT_B_LEFT} -gt 0; then
        setenv chosen B
        setenv partition root-b
        setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
    fi
done

if test ${chosen} = none; then
    # A device that stands still helps nobody.
    echo "slots: none has an attempt left, so that each gets three"
    setenv BOOT_A_LEFT 3
    setenv BOOT_B_LEFT 3
    saveenv
    reset
fi
saveenv
echo "slots: booting ${chosen}; left A ${BOOT_A_LEFT}, B ${BOOT_B_LEFT}"

part number ${devtype} ${devnum} ${partition} number
setenv bootargs "console=${console} root=PARTLABEL=${partition} ro rootwait panic=5 rauc.slot=${chosen}"
if load ${devtype} ${devnum}:${number} ${kernel_addr_r} /boot/Image; then
    booti ${kernel_addr_r} - ${fdtcontroladdr}
fi
# There is no system in it: the next attempt.
reset
