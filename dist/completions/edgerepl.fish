# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_edgerepl_global_optspecs
    string join \n config= runtime-directory= h/help V/version
end

function __fish_edgerepl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_edgerepl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_edgerepl_using_subcommand
    set -l cmd (__fish_edgerepl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c edgerepl -n "__fish_edgerepl_needs_command" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_needs_command" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_needs_command" -s h -l help -d 'Print help'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -s V -l version -d 'Print version'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "run" -d 'Runs the daemon: fetches credentials, renews them, and hands them to Litestream'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "check" -d 'Checks the configuration and everything that it names'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "init" -d 'Writes a configuration: asks for what is missing, or takes it as options'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "status" -d 'Shows the state of the running daemon: credentials, Litestream, replica'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "restore" -d 'Restores the databases that are missing from their replicas'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "verify" -d 'Restores the replicas to temporary copies and compares them with the databases'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "sync" -d 'Uploads everything now, such as before a planned power-off'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "pause" -d 'Holds uploads back, for [replication] rpo_metered at the most'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "resume" -d 'Ends a pause: what has waited is uploaded at once'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "boot-check" -d 'After an update over the air: decides whether the booted image may stay'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "credential-process" -d 'Prints credentials in the format of the AWS SDKs\' credential_process'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "csr" -d 'Prints a certificate request (PKCS #10), signed with the device\'s key'
complete -c edgerepl -n "__fish_edgerepl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand run" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand run" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand run" -s h -l help -d 'Print help'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand check" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand check" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand check" -l online -d 'Also fetches credentials once'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand check" -l json -d 'Prints JSON'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l certificate -d 'Path of the device\'s certificate (PEM)' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l private-key -d 'The certificate\'s private key: a PKCS #11 URI, or a path' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l endpoint -d 'Endpoint of the AWS IoT credential provider' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l role-alias -d 'Role alias that the device assumes' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l region -d 'Region of the bucket' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l bucket -d 'Bucket for the replicas' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l database -d 'Path of the database' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand status" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand status" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand status" -l json -d 'Prints JSON'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand status" -s h -l help -d 'Print help'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand restore" -l timestamp -d 'Restores the state of this time, such as 2026-11-29T12:00:00Z (RFC 3339)' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand restore" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand restore" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand restore" -l wait -d 'Retries until each database is restored, or there is nothing to do'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand verify" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand verify" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand verify" -l json -d 'Prints JSON'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand sync" -l timeout -d 'How long to wait, in seconds' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand sync" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand sync" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand sync" -l json -d 'Prints JSON'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand sync" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand pause" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand pause" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand pause" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand resume" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand resume" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand resume" -s h -l help -d 'Print help'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l limit -d 'How long a new image may take to be healthy, in seconds; time without a network does not count' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l slot -d 'Name of the booted slot [default: from the kernel\'s command line]' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l wait -d 'Waits until it is known'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -l before-reboot -d 'Decides nothing: notes, before a reboot, whether the device is healthy, for the trial of the next image'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand boot-check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand credential-process" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand credential-process" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand credential-process" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand csr" -l subject -d 'Distinguished name of the subject [default: CN=, then the thing\'s name]' -r
complete -c edgerepl -n "__fish_edgerepl_using_subcommand csr" -l generate -d 'Generates the key in the token first; never replaces a key' -r -f -a "p256\t'ECDSA on P-256'
rsa2048\t'RSA with 2048 bits'"
complete -c edgerepl -n "__fish_edgerepl_using_subcommand csr" -l config -d 'Main configuration file' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand csr" -l runtime-directory -d 'Directory of sockets and locks [default: RUNTIME_DIRECTORY, else /run/edgerepl]' -r -F
complete -c edgerepl -n "__fish_edgerepl_using_subcommand csr" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "run" -d 'Runs the daemon: fetches credentials, renews them, and hands them to Litestream'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "check" -d 'Checks the configuration and everything that it names'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "init" -d 'Writes a configuration: asks for what is missing, or takes it as options'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "status" -d 'Shows the state of the running daemon: credentials, Litestream, replica'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "restore" -d 'Restores the databases that are missing from their replicas'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "verify" -d 'Restores the replicas to temporary copies and compares them with the databases'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "sync" -d 'Uploads everything now, such as before a planned power-off'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "pause" -d 'Holds uploads back, for [replication] rpo_metered at the most'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "resume" -d 'Ends a pause: what has waited is uploaded at once'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "boot-check" -d 'After an update over the air: decides whether the booted image may stay'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "credential-process" -d 'Prints credentials in the format of the AWS SDKs\' credential_process'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "csr" -d 'Prints a certificate request (PKCS #10), signed with the device\'s key'
complete -c edgerepl -n "__fish_edgerepl_using_subcommand help; and not __fish_seen_subcommand_from run check init status restore verify sync pause resume boot-check credential-process csr help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
