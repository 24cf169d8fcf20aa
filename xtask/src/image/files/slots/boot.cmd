# Chooses a slot, counts the attempt, and boots it. U-Boot runs this from the boot partition.
#
# What is remembered from boot to boot (the order of the slots, and how many attempts each has left) is
# in the partition `env`, in the redundant format that fw_setenv knows: two copies, each a CRC, a
# counter of one byte, and texts. The copy with the later counter holds, and the other one is written:
# a power cut in the midst of a write leaves the one that held. U-Boot's own environment is in a flash
# that Linux has no driver for.
#
# U-Boot itself checks and makes the format without a counter, so that each copy is converted in memory.
# The CRC is over the texts in both:
#   on the disk   CRC (4 bytes)  counter (1)  texts
#   for U-Boot    CRC (4 bytes)  texts

setenv names 'BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT'
# Where the copies are, in sectors. How large one is: in sectors, in bytes without its counter, and
# its texts alone.
part start ${devtype} ${devnum} env at_0
setexpr at_1 ${at_0} + 400
setenv sectors 20
setenv bytes 3fff
setenv texts 3ffb

# A copy is read, converted and checked: its counter, and whether it is good.
setenv look 'setenv good no; setenv counter 0; if ${devtype} read 50000000 ${at} ${sectors}; then cp.b 50000000 50010000 4; cp.b 50000005 50010004 ${texts}; setexpr.b counter *50000004; if env import -c 50010000 ${bytes} ${names}; then setenv good yes; fi; fi'
# The copy that does not hold is written.
setenv remember 'setexpr counter ${counter} + 1; setexpr counter ${counter} % 100; env export -c -s ${bytes} 50010000 ${names}; cp.b 50010000 50000000 4; cp.b 50010004 50000005 ${texts}; mw.b 50000004 ${counter}; ${devtype} write 50000000 ${at} ${sectors}'

# As it is on a new device.
setenv anew 'setenv BOOT_ORDER A B; setenv BOOT_A_LEFT 3; setenv BOOT_B_LEFT 3'

setenv at ${at_0}; run look
setenv good_0 ${good}; setenv counter_0 ${counter}
setenv at ${at_1}; run look
setenv good_1 ${good}; setenv counter_1 ${counter}

# Now the variables are those of copy 1, where it is good. The counter goes round: 0 comes after ff.
setexpr next ${counter_0} + 1
setexpr next ${next} % 100
if test ${good_0} = yes; then
    if test ${good_1} = no -o ${counter_1} != ${next}; then
        setenv at ${at_0}; run look
        setenv at ${at_1}
    else
        setenv at ${at_0}
    fi
else
    setenv at ${at_0}
fi
if test ${good_0} = no -a ${good_1} = no; then
    run anew
fi
echo "slots: copies ${good_0} ${counter_0}, ${good_1} ${counter_1}; order ${BOOT_ORDER}; left A ${BOOT_A_LEFT}, B ${BOOT_B_LEFT}"

setenv chosen none
for slot in ${BOOT_ORDER}; do
    if test ${chosen} = none -a ${slot} = A -a 0${BOOT_A_LEFT} -gt 0; then
        setenv chosen A
        setenv partition slot-a
        setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
    fi
    if test ${chosen} = none -a ${slot} = B -a 0${BOOT_B_LEFT} -gt 0; then
        setenv chosen B
        setenv partition slot-b
        setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
    fi
done

if test ${chosen} = none; then
    echo "slots: no slot has an attempt left: each gets three"
    run anew
    run remember
    reset
fi
run remember
echo "slots: booting ${chosen}"
part number ${devtype} ${devnum} ${partition} number
setenv bootargs "console=ttyAMA0 quiet loglevel=4 panic=1 root=PARTLABEL=${partition} ro rauc.slot=${chosen}"
if load ${devtype} ${devnum}:${number} ${kernel_addr_r} /boot/vmlinuz; then
    if load ${devtype} ${devnum}:${number} ${ramdisk_addr_r} /boot/initrd; then
        @BOOT@ ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
    fi
fi
# It holds no system: the next attempt.
reset
