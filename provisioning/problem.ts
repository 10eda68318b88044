// The one table of everything that can go wrong, each with what it means and what a person does next.

/** What the table knows of a code. `retry`: doing the same again later may work by itself. */
export interface ProblemEntry {
  readonly meaning: string
  readonly remedy: string
  readonly retry?: true
}

const table = () =>
  ({
    'action.deadline': {
      meaning: 'A program that changes the host did not end in time and was stopped.',
      remedy:
        'See what it was doing with garrison journal; then run garrison apply again: it looks at the host afresh.',
      retry: true,
    },
    'action.failed': {
      meaning: 'A program that changes the host ended with an error.',
      remedy:
        'Read its last lines above (also in garrison journal), mend the cause, then run garrison apply again.',
      retry: true,
    },
    'agent.defect': {
      meaning: 'Garrison itself went wrong in a way it did not foresee.',
      remedy:
        'Report it with the output of garrison version and journalctl -u garrison-operate; nothing further was done.',
    },
    'apply.lock-damaged': {
      meaning:
        'The lock of garrison apply holds something that Garrison did not write, so nobody can tell who has it.',
      remedy:
        'Make sure that no garrison apply is running, remove the file named in the message, and try again.',
    },
    'apply.locked': {
      meaning: 'Another apply is running; only one may at a time.',
      remedy: 'Follow it with garrison journal --follow; when it has ended, run yours again.',
      retry: true,
    },
    'array.ambiguous': {
      meaning: 'More than one array on the host could be the one that the document means.',
      remedy:
        'Look at them with garrison drives and mdadm --detail; give array.name the name of the right one, or list array.members by serial.',
    },
    'array.impossible': {
      meaning: 'The options of the array contradict each other.',
      remedy: 'Correct the array part of the desired document; garrison schema explains each key.',
    },
    'array.lost': {
      meaning:
        'The array that mdadm.conf remembers is on no drive any more, as after a stop of an instance with instance store.',
      remedy:
        'See garrison status for the volumes that went with it. Set array.onLoss to recreate to make the array anew, or put its drives back.',
    },
    'array.member-absent': {
      meaning: 'A drive that the document or the command names is not in the host.',
      remedy:
        'See garrison drives for the serials that are there; correct array.members, or put the drive in.',
    },
    'array.members-missing': {
      meaning: 'Too few members of the array are there to start it.',
      remedy:
        'See garrison drives and journalctl -k for the missing ones; put them back. Nothing was written, so what is on the others is kept.',
    },
    'array.replace-impossible': {
      meaning: 'There is no running array with that member, so nothing can be put in its place.',
      remedy: 'See garrison drives for the members and garrison status for the array.',
    },
    'array.replace-refused': {
      meaning: 'The new drive is not provably blank and free.',
      remedy:
        'See garrison drives for all that is against it; use another, or clear it yourself once you know what is on it.',
    },
    'array.too-few-drives': {
      meaning: 'Too few drives are provably blank and free to make the array of.',
      remedy:
        'See garrison drives: each refused drive says why. Clear those you can spare yourself, or correct array.minimum, count or members.',
    },
    'array.wrong-level': {
      meaning: 'The array that is there has another RAID level than the document wants.',
      remedy:
        'Levels are not converted: give array.level what is there, or move the data away, take the array apart yourself and apply again.',
    },
    'backup.copy-failed': {
      meaning: 'The disks of a VM could not be copied to their end; nothing of the copy is left.',
      remedy:
        'Read why in the message: a full or failing drive, or a VM or libvirt that ended meanwhile. Mend that, and make the backup again.',
      retry: true,
    },
    'backup.damaged': {
      meaning: 'An image of a backup cannot be read, or is not what was written.',
      remedy:
        'Do not restore from it. See what else there is with garrison vm backups, make a new one with garrison vm backup --full, and look at the drive or server that it is on.',
    },
    'backup.definition-differs': {
      meaning: 'The VM is defined with other disks now than when it was backed up.',
      remedy: 'Restore it as a VM of its own: garrison vm restore … --as NAME.',
    },
    'backup.disk-unsupported': {
      meaning: 'A disk of the VM is of a kind that is not copied.',
      remedy: 'Back it up where it is. The VM itself is left alone, for half of it would be no backup.',
    },
    'backup.in-the-way': {
      meaning: 'What would be restored is there already, and nothing is written over without being told.',
      remedy:
        'Restore it under another name (--as NAME), or, as root, over what is there (--overwrite). A file that nobody knows is looked at, and removed, by you.',
    },
    'backup.manifest-damaged': {
      meaning: 'The manifest of a VM’s backups was torn or changed, so nobody can tell what its files are.',
      remedy:
        'Nothing was touched. Its images are plain qcow2 files: qemu-img info --backing-chain tells how they belong together. To go on here, move the folder away.',
    },
    'backup.no-place': {
      meaning: 'The folder is not one that backups are kept in, or what should be mounted there is not.',
      remedy:
        'Mount what belongs there. To keep backups in a new folder, say so once as root: garrison vm backup … --init.',
    },
    'backup.none': {
      meaning: 'There is no such backup.',
      remedy: 'See what there is with garrison vm backups.',
    },
    'backup.not-trusted': {
      meaning:
        'Others than root can change what is in the folder, and what it holds is taken as it is found.',
      remedy: 'Give the folder to root, and take the right to write away from everybody else.',
    },
    'backup.other-vm': {
      meaning: 'The backups that are there are those of another VM of the same name.',
      remedy:
        'Keep the backups of this VM in another place, or move the folder named in the message away when they are no longer wanted.',
    },
    'cloudwatch.busy': {
      meaning: 'CloudWatch took nothing just then: too much was asked of it, or it was not available.',
      remedy: 'Nothing to do: what waits is on the disk, and is sent as soon as CloudWatch takes it.',
      retry: true,
    },
    'cloudwatch.denied': {
      meaning: 'This host may not tell CloudWatch anything, or has no credentials that hold.',
      remedy:
        'Give the instance a role that allows cloudwatch:PutMetricData and cloudwatch:GetMetricData, and logs:… where events are sent: garrison iam prints the whole policy.',
    },
    'cloudwatch.no-region': {
      meaning: 'It is not known which Region CloudWatch is to be told in.',
      remedy: 'Write cloudwatch.region into the desired document.',
    },
    'cloudwatch.not-told': {
      meaning: 'The desired document says nothing of CloudWatch, so nothing is sent there.',
      remedy:
        'Write "cloudwatch: {}" into the desired document; garrison schema explains what can be chosen.',
    },
    'cloudwatch.refused': {
      meaning: 'CloudWatch does not take what it was told, for a reason that lies in it.',
      remedy:
        'Read what CloudWatch says above; correct the cloudwatch part of the desired document where it is meant, else report it.',
    },
    'cloudwatch.unanswered': {
      meaning:
        'A request reached CloudWatch and no whole answer came back, so nobody can tell whether it was taken.',
      remedy:
        'Nothing to do: CloudWatch is asked for it before it is sent again. When it goes on, see whether something between here and the Region cuts connections.',
      retry: true,
    },
    'cloudwatch.unreachable': {
      meaning: 'CloudWatch could not be reached.',
      remedy:
        'See whether the Region can be reached (the service link of the Outpost, the route, DNS). What waits is on the disk for two weeks.',
      retry: true,
    },
    'daemon.absent': {
      meaning: 'The daemon could not be reached: its socket is not there, or nobody listens.',
      remedy:
        'Start it: systemctl enable --now garrison.service; systemctl status garrison tells why it does not run. garrison status looks without it.',
      retry: true,
    },
    'desired.invalid': {
      meaning: 'The desired document is not valid; nothing was read from the rest of it.',
      remedy: 'Mend the lines named, try them with garrison check FILE; garrison schema prints every key.',
    },
    'desired.missing': {
      meaning: 'There is no desired document, so there is nothing to converge to.',
      remedy:
        'Write /etc/garrison/host.yaml (an example is in /usr/share/doc/garrison/examples); garrison schema explains each key.',
    },
    'desired.not-trusted': {
      meaning:
        'Somebody other than root can write a file or folder of the desired document, and so could decide what root does.',
      remedy:
        'See that it says what you want, then: chown root:root PATH and chmod go-w PATH, with the path that is named.',
    },
    'door.closed': {
      meaning: 'The root side could not be reached: its socket is not there, or nobody listens.',
      remedy:
        'Start its doors: systemctl start garrison-read.socket garrison-operate.socket garrison-admin.socket. Without systemd, run it as root.',
    },
    'door.lost': {
      meaning: 'The connection to the root side ended before its answer was complete.',
      remedy:
        'See journalctl -u garrison-operate for why; a step in hand is in garrison journal. Running the verb again is safe.',
      retry: true,
    },
    'door.refused': {
      meaning: 'The socket that was asked may not do this.',
      remedy:
        'Looking needs group garrison-read, applying group garrison, destroying data root: try with sudo, or ask an administrator for the group.',
    },
    'drive.active': {
      meaning: 'Somebody reads or writes the drive.',
      remedy: 'Find out who (fuser -v, iotop, lsof), let it finish, then run garrison plan again.',
    },
    'drive.backup-gpt': {
      meaning:
        'The drive has a backup partition table at its end: it was partitioned, and only the front was cleared.',
      remedy:
        'Find out what was on it (gdisk can restore the table). To use the drive, clear it yourself: wipefs --all.',
    },
    'drive.busy': {
      meaning: 'A drive could not be opened exclusively just before the first write: something uses it.',
      remedy: 'See garrison drives for who holds it. Nothing was written.',
    },
    'drive.count-unlike': {
      meaning: 'The drives that are fit are not as many as the document wants.',
      remedy:
        'See garrison drives for why the others are refused, or correct array.count, minimum or spares.',
    },
    'drive.duplicate-serial': {
      meaning:
        'Two drives have the same serial number: one drive on two paths, or one that cannot be told from another.',
      remedy: 'Set up multipath, or take one out; Garrison does not choose between them.',
    },
    'drive.ebs': {
      meaning: 'The drive is an EBS volume.',
      remedy: 'If the array is meant to stand on EBS, add ebs to array.allow.',
    },
    'drive.holder': {
      meaning: 'The kernel has stacked something on the drive: a device-mapper table, an md array, a cache.',
      remedy: 'See lsblk and dmsetup table for what it is; take it apart yourself if it is not needed.',
    },
    'drive.holds-root': {
      meaning: 'The running system stands on the drive.',
      remedy: 'Nothing to do: it is never used for the array.',
    },
    'drive.locked-apply': {
      meaning: 'Another apply is running and may change the drive.',
      remedy: 'Wait for it with garrison journal --follow; then run garrison plan again.',
    },
    'drive.loop': {
      meaning: 'It is a loop, network or memory device.',
      remedy: 'For experiments add loop to array.allow.',
    },
    'drive.mounted': {
      meaning: 'A filesystem on the drive is mounted.',
      remedy: 'Unmount it if it is not needed (umount); what is on it stays and is refused for itself.',
    },
    'drive.mounted-elsewhere': {
      meaning:
        'A filesystem on the drive is mounted in a mount namespace of some process, as in a container.',
      remedy: 'See nsenter --target PID --mount findmnt with the process named; end or unmount it there.',
    },
    'drive.named-in-crypttab': {
      meaning: '/etc/crypttab names the drive, though it may not be open now.',
      remedy: 'If that entry is no longer needed, take it out of /etc/crypttab.',
    },
    'drive.named-in-fstab': {
      meaning: '/etc/fstab names the drive, though it may not be mounted now.',
      remedy: 'If that entry is no longer needed, take it out of /etc/fstab.',
    },
    'drive.named-in-mdadm-conf': {
      meaning: 'mdadm.conf names the drive or the array on it.',
      remedy: 'If that entry is no longer needed, take it out of the file named.',
    },
    'drive.named-in-unit': {
      meaning: 'A systemd mount or swap unit names the drive.',
      remedy: 'See systemctl cat with the unit named; remove it if it is no longer needed.',
    },
    'drive.not-zero': {
      meaning:
        'The drive is not blank, though nothing on it is recognised: it may be raw data of a VM or a database.',
      remedy:
        'Find out what it is (hexdump -C at the place named). To use the drive, clear it yourself: blkdiscard --zeroout, or nvme format.',
    },
    'drive.other-instance': {
      meaning: 'The desired document is for another instance than this host is.',
      remedy: 'If this host is meant, correct host.instance in the desired document.',
    },
    'drive.partition-table': {
      meaning: 'The drive has a partition table.',
      remedy:
        'Look what is on its partitions (lsblk -f). To use the drive, clear it yourself: wipefs --all on them and on it.',
    },
    'drive.read-only': {
      meaning: 'The kernel has the drive read-only.',
      remedy: 'See journalctl -k for why; blockdev --setrw only ends what somebody set by hand.',
    },
    'drive.removable': {
      meaning: 'The drive is removable or on USB.',
      remedy: 'If it is meant, add removable to array.allow.',
    },
    'drive.signature': {
      meaning:
        'Something recognises its own data on the drive: a filesystem, LVM, md, LUKS, ZFS, Ceph, swap, …',
      remedy:
        'Find out what is on it (wipefs, blkid --probe, mdadm --examine). To use the drive, clear it yourself: wipefs --all. To adopt an md array, give array.name its name.',
    },
    'drive.size-unlike': {
      meaning: 'The drive differs in size from the others by more than one per cent.',
      remedy: 'Leave it, or list the drives that are meant in array.members by serial.',
    },
    'drive.swap': {
      meaning: 'The drive is in use as swap space.',
      remedy: 'If it is not needed as swap: swapoff, then clear it yourself.',
    },
    'drive.udev-busy': {
      meaning: 'udev was still working on events, so what is known of the drives may be about to change.',
      remedy: 'Wait for udevadm settle; if it never ends, see systemctl status systemd-udevd.',
    },
    'drive.unfinished-apply': {
      meaning: 'The journal shows that another plan was begun on the drive and never ended.',
      remedy:
        'See garrison journal. Restore that document to let it finish, or list the drives in array.members by serial to say that they are free.',
    },
    'drive.unknown': {
      meaning: 'A fact that decides about the drive could not be read, and unknown is not fine.',
      remedy: 'Read why in the message; a drive that does not answer shows up in journalctl -k.',
    },
    'drive.unlike-plan': {
      meaning: 'The drive that a link in array.members leads to is not the one whose serial is in the link.',
      remedy: 'Run udevadm trigger --settle, look at the link with ls -l, or list the drive by serial.',
    },
    'drive.unwell': {
      meaning: 'The drive itself reports a critical condition.',
      remedy: 'See nvme smart-log; replace the drive.',
    },
    'drive.used-by-vm': {
      meaning: 'A libvirt domain or storage pool uses the drive, or has it passed through.',
      remedy:
        'See virsh domblklist or virsh pool-dumpxml; take it out of that definition if it is not needed.',
    },
    'drive.zoned': {
      meaning: 'The drive is zoned: md cannot write to it as it wants.',
      remedy: 'Use another drive.',
    },
    'ec2.credentials-expired': {
      meaning: 'AWS says that the request, or the credentials that it was signed with, have expired.',
      remedy:
        'Compare the clock of this host (timedatectl) with the real time. Credentials of an instance role are renewed by themselves once the Region can be reached; renew others yourself.',
      retry: true,
    },
    'ec2.credentials-refused': {
      meaning: 'AWS does not know the credentials, or their signature is wrong.',
      remedy:
        'See which are used: the instance profile, or AWS_ variables and files in ~/.aws of root. Correct or remove those that are wrong.',
    },
    'ec2.denied': {
      meaning: 'IAM does not allow this host what it asked the EC2 API for.',
      remedy:
        'Allow {action} to the role of this instance: garrison iam prints the whole policy. IAM needs up to a minute to spread it.',
    },
    'ec2.no-credentials': {
      meaning: 'There are no AWS credentials to ask the EC2 API with.',
      remedy: 'Give the instance an instance profile whose role has the policy that garrison iam prints.',
    },
    'ec2.no-instance': {
      meaning: 'This host is no EC2 instance, or nobody tells that it is one.',
      remedy:
        'A local network interface needs an EC2 instance on an Outposts server; take uplinks.NAME.lni out of the document of this host.',
    },
    'ec2.not-visible': {
      meaning: 'EC2 made a network interface, or says that it did, and then does not know it.',
      remedy:
        'Run garrison apply again: it looks first whether it is there by now, and otherwise asks for another one.',
      retry: true,
    },
    'ec2.refused': {
      meaning: 'The EC2 API does not do what was asked, and says why.',
      remedy:
        'Read its reason in the message; correct the document or what stands in its way in the account.',
    },
    'ec2.server-error': {
      meaning: 'The EC2 API has a fault of its own.',
      remedy: 'Run garrison apply again later; the AWS Health Dashboard tells of larger disturbances.',
      retry: true,
    },
    'ec2.throttled': {
      meaning: 'The EC2 API was asked too much by this account for the moment.',
      remedy: 'Run garrison apply again in a few minutes; find out what else asks so much of EC2.',
      retry: true,
    },
    'ec2.unexpected-answer': {
      meaning: 'What answers in the place of the EC2 API does not speak as it does.',
      remedy:
        'See what AWS_ENDPOINT_URL_EC2, a proxy or the name service lead to; then run garrison apply again.',
      retry: true,
    },
    'ec2.unreachable': {
      meaning: 'The EC2 API of the Region did not answer. Everything that needs no EC2 goes on.',
      remedy:
        'See whether the Region can be reached over the ENI (ip route get, the service link of the Outpost, VPC endpoints, name service). Nothing is lost meanwhile.',
      retry: true,
    },
    'export.damaged': {
      meaning: 'A file of an exported VM is not what was written, or says what no export says.',
      remedy:
        'Do not use it. Copy the folder again from where it was made, or export the VM again: garrison vm export VM DIR.',
    },
    'export.in-the-way': {
      meaning: 'The folder that an export was to be written into holds something else.',
      remedy: 'Name a folder that is not there yet, or is empty; or end the export that was begun in it.',
    },
    'export.other-architecture': {
      meaning: 'The VM has processors of another architecture than this host.',
      remedy: 'Import it on a host of the architecture that the message names.',
    },
    'file.exists': {
      meaning: 'A file or folder is in the place where another was to be put; nothing was replaced.',
      remedy: 'Look what it is; move it away yourself if it is not needed, then run garrison apply again.',
    },
    'file.no-space': {
      meaning:
        'A file could not be written because its filesystem or quota is full; the last good one is intact.',
      remedy: 'Make room there (df -h, df -i, journalctl --vacuum-size=100M), then run garrison apply again.',
      retry: true,
    },
    'file.read-only': {
      meaning:
        'A file could not be written because its filesystem is read-only; the last good one is intact.',
      remedy:
        'Kernels make a filesystem read-only after I/O errors: see journalctl -k and findmnt; mend it before garrison apply.',
    },
    'file.unwritable': {
      meaning: 'A file could not be written; the last good one is intact.',
      remedy:
        'Look at the error number in the message: EACCES wants root, EIO is a failing drive (journalctl -k).',
    },
    'firewall.locks-out': {
      meaning:
        'The firewall that is wanted would refuse somebody who is in over SSH by the very interface that it guards.',
      remedy:
        'Add an opening for them (firewall.allow: service: ssh, from: their address), or let them leave and apply over another interface.',
    },
    'fleet.busy': {
      meaning: 'A host of the fleet has as much under way as it takes on at one time.',
      remedy:
        'Wait until something of it has ended, then ask again; garrison fleet peers shows who is linked with whom.',
      retry: true,
    },
    'fleet.damaged': {
      meaning: 'The keys of this host in its fleet are not whole, or do not belong together.',
      remedy:
        'Move /var/lib/garrison/fleet away, revoke this host where it was let in (garrison fleet revoke), and let it join again.',
    },
    'fleet.denied': {
      meaning: 'The keys of the fleet belong to the user garrison, and only it and root may use them.',
      remedy: 'Run the same command as root: it goes on as the user garrison.',
    },
    'fleet.errand-refused': {
      meaning: 'A peer does not speak to CloudWatch for this host, or not of this.',
      remedy:
        'On a host that reaches the Region, write cloudwatch.relay.offer: true into the document, with the namespace, Region and log group of the host that asks; garrison fleet status tells who offers.',
      retry: true,
    },
    'fleet.exists': {
      meaning: 'There is a fleet here already, and its keys are not written over.',
      remedy:
        'See garrison fleet status. To leave that fleet for good: revoke this host where it was let in, then move the folder named away.',
    },
    'fleet.file-damaged': {
      meaning:
        'A file that Garrison keeps of its fleet does not hold what was written there: it was edited, or the drive has lost it. All else goes on without it.',
      remedy:
        'Remove the file named in the message, as root, and see garrison fleet status: the other hosts tell again where they are and whom they trust no more. Where this host lets others in, enrolled/HOST.json is needed only to revoke HOST, and lifetimes.json only for another lifetime than 90 days.',
    },
    'fleet.name-refused': {
      meaning: 'The name is none that a host of a fleet can have.',
      remedy: 'Give it one with --name: up to 63 lower-case letters, digits, - and dots.',
    },
    'fleet.name-taken': {
      meaning: 'The fleet has a host of that name already.',
      remedy:
        'Join with another --name; or, if that host is gone or was installed anew, revoke it first: garrison fleet revoke {host}.',
    },
    'fleet.no-issuer': {
      meaning: 'Certificates are asked of a host that issues none.',
      remedy:
        'Ask on the host where garrison fleet init was run. Where that one is gone for good: garrison fleet request makes another host an issuer.',
    },
    'fleet.none': {
      meaning: 'This host is in no fleet.',
      remedy:
        'Begin one with garrison fleet init, or join one with a token of garrison fleet invite: garrison fleet join TOKEN.',
    },
    'fleet.port-taken': {
      meaning: 'The port of the fleet could not be listened on.',
      remedy:
        'See ss -ltnp for who has it; or give the fleet another port: fleet.port in the desired document.',
      retry: true,
    },
    'fleet.request-refused': {
      meaning: 'A request for a certificate, or the certificate that came back, is not what it should be.',
      remedy: 'Make the request anew on the host that it is for, and carry it and its answer over whole.',
    },
    'fleet.role-refused': {
      meaning: 'The certificate of the host that asks does not allow this.',
      remedy:
        'Ask on the host itself; or let the host that asks join again with a higher role: garrison fleet invite --role operate.',
    },
    'fleet.token-refused': {
      meaning: 'An invitation could not be used.',
      remedy:
        'Make a new one on the host that issues certificates: garrison fleet invite. Each opens the fleet once, and only for a short time.',
    },
    'fleet.unknown-host': {
      meaning: 'No host of that name is known in the fleet.',
      remedy: 'See garrison fleet status for the names.',
    },
    'fleet.unreachable': {
      meaning: 'A host of the fleet could not be reached. That does not mean that it is down.',
      remedy:
        'See garrison fleet status for who saw it last, when and over which network; then ping it, or look at its console.',
      retry: true,
    },
    'host.deadline': {
      meaning: 'A program that only reads the host did not answer in time.',
      remedy: 'Run it by hand to see where it hangs; a dead drive or a stuck daemon is the usual cause.',
      retry: true,
    },
    'host.denied': {
      meaning: 'The agent was not allowed to read a part of the host.',
      remedy: 'Run it as root, or through garrison-operate.socket as a member of group garrison.',
    },
    'host.query-refused': {
      meaning: 'A query is not on the allow-list of programs that only read.',
      remedy: 'This is a defect of Garrison: report it with the argv shown.',
    },
    'host.tool-missing': {
      meaning: 'A program that Garrison needs for reading is not installed.',
      remedy: 'Install it, or declare the software resource so that garrison apply does.',
    },
    'host.unreadable': {
      meaning: 'A part of the host could not be read.',
      remedy: 'Look at the cause given; a failing drive shows up in journalctl -k.',
      retry: true,
    },
    'host.unexpected-answer': {
      meaning: 'A program answered in a form that Garrison does not know.',
      remedy: 'Run garrison record DIR and report the transcript; until then the part stays unknown.',
    },
    'image.checksum-wrong': {
      meaning: 'A file is not the one that the checksum names. Nothing of it is kept.',
      remedy:
        'Compare the checksum with the one that the publisher lists; an image that was published anew has another. Then run garrison apply again.',
    },
    'image.corrupt': {
      meaning: 'The image says of itself that it is corrupt.',
      remedy:
        'Repair it where it comes from (qemu-img check -r all) and publish it again with its new checksum.',
    },
    'image.encrypted': {
      meaning: 'The image is encrypted, and Garrison has no key for it.',
      remedy: 'Decrypt it with qemu-img convert before it is published; let the guest encrypt its own disk.',
    },
    'image.fetch-failed': {
      meaning:
        'The file could not be fetched. What has arrived is kept, and the next try goes on from there.',
      remedy:
        'See whether the server can be reached from this host (curl --head URL); then run garrison apply again.',
      retry: true,
    },
    'image.format-differs': {
      meaning: 'The image is not of the format that the document says.',
      remedy: 'Correct format, or decompress or convert the image (qemu-img convert) before it is published.',
    },
    'image.in-use': {
      meaning:
        'The image cannot be taken away: a disk of a VM, or another image, keeps only what differs from it.',
      remedy:
        'See what stands on it with garrison images list. It can go when that is gone, or is whole (--set disks.NAME.image.copy=full makes new VMs so).',
    },
    'image.leads-elsewhere': {
      meaning:
        'The image names another file that it would be read from, which could be any file of this host.',
      remedy: 'Make it one file before it is published: qemu-img convert -O qcow2 IMAGE NEW.',
    },
    'image.no-credentials': {
      meaning:
        'An S3 object could not be asked for: there are no AWS credentials, or the region is not known.',
      remedy:
        'Give the instance a role that may read the object (s3:GetObject), and let it reach its metadata; see curl -s http://169.254.169.254/latest/meta-data/iam/.',
    },
    'image.not-offered': {
      meaning: 'The server answers that it does not have the file, or not for this host.',
      remedy: 'Correct the source in the document, or let the server offer it; the message has its answer.',
    },
    'image.redirect-refused': {
      meaning:
        'The server leads to somewhere that is no http(s) URL, or from one place to the next without end.',
      remedy: 'Give the document the URL where the file really is.',
    },
    'image.size-differs': {
      meaning: 'The file has another length than the document says.',
      remedy: 'Correct sizeBytes, or leave it out: the checksum decides.',
    },
    'image.users-unknown': {
      meaning: 'A definition or a file could not be read, so nobody can tell what stands on the image.',
      remedy:
        'See garrison images list for what could not be read and why; mend that, or take it away, and try again.',
    },
    'imds.refused': {
      meaning: 'The instance metadata are there and refuse to answer.',
      remedy:
        'Switch the metadata endpoint of the instance on (HttpEndpoint enabled in its metadata options), and see that no firewall of this host denies it to root.',
    },
    'imds.unexpected-answer': {
      meaning: 'What answers in the place of the instance metadata does not speak as they do.',
      remedy:
        'See what is behind the link-local address: ip route get 169.254.169.254, and AWS_EC2_METADATA_SERVICE_ENDPOINT.',
      retry: true,
    },
    'imds.unreachable': {
      meaning: 'This is an EC2 instance, and its metadata do not answer.',
      remedy:
        'See that 169.254.169.254 is routed over the first interface (ip route get 169.254.169.254) and denied by no firewall.',
      retry: true,
    },
    'job.busy': {
      meaning: 'Other long work on the same VM, image or place is under way.',
      remedy: 'See it with garrison jobs; when it has ended, or been cancelled, ask again.',
      retry: true,
    },
    'job.cancelled': {
      meaning: 'Somebody ended this job before it was done.',
      remedy: 'What was half done was taken away. Ask again when it is wanted after all.',
    },
    'job.elsewhere': {
      meaning: 'The job runs in a process of its own, since it was begun where there was no root side.',
      remedy: 'End it with Ctrl-C in the terminal that it was begun in, or with kill {pid}.',
    },
    'job.ended': {
      meaning: 'The job has ended already.',
      remedy: 'See how it ended with garrison jobs.',
    },
    'job.interrupted': {
      meaning: 'The process that a job ran in has ended before the job did.',
      remedy: 'Ask for the same again: it goes on with what is there, or begins anew.',
      retry: true,
    },
    'job.unknown': {
      meaning: 'There is no job of that id, or it ended so long ago that it was forgotten.',
      remedy: 'See the jobs that are known with garrison jobs, and older ones with garrison journal.',
    },
    'journal.unwritable': {
      meaning: 'The journal could not be written, so the host was not touched.',
      remedy:
        'Make its folder (named in the message) writable: free space, a read-write mount; then run garrison apply again.',
      retry: true,
    },
    'libvirt.denied': {
      meaning:
        'The socket of libvirt may not be opened, or it wants a way to log in that Garrison does not speak.',
      remedy:
        'Run it as root, or through the root side (garrison-operate.socket). As root: auth_unix_rw in libvirtd.conf must be none or polkit.',
    },
    'libvirt.refused': {
      meaning: 'libvirt was asked and answered with an error.',
      remedy:
        'The message is its own; more is in journalctl -u libvirtd -u virtqemud, and for a VM that does not start in its log below /var/log/libvirt/qemu.',
    },
    'libvirt.unreachable': {
      meaning: 'libvirt does not answer, so nobody can tell what the VMs do; they may well be running.',
      remedy:
        'See systemctl status libvirtd virtqemud and journalctl -u libvirtd; a restart of it touches no running VM.',
      retry: true,
    },
    'lni.detaching': {
      meaning: 'The local network interface is just being detached.',
      remedy: 'Wait until EC2 has ended that, then run garrison apply again.',
      retry: true,
    },
    'lni.elsewhere': {
      meaning:
        'The interface that was made for this host is in another subnet, or attached to another instance.',
      remedy:
        'Give uplinks.NAME.lni.subnet the subnet that it is in; or detach it there, delete it yourself (aws ec2 delete-network-interface) and apply again.',
    },
    'lni.index-taken': {
      meaning: 'An interface of another kind is attached where the local network interface belongs.',
      remedy: 'Detach it, or give uplinks.NAME.lni.deviceIndex another number.',
    },
    'lni.no-subnet': {
      meaning: 'The subnet for the local network interface does not exist, or could not be told.',
      remedy: 'Correct uplinks.NAME.lni.subnet; without it the subnet of the first interface is taken.',
    },
    'lni.not-appeared': {
      meaning: 'EC2 says that the interface is attached, and this host has no device with its MAC.',
      remedy:
        'See what the kernel says of it (dmesg | grep -i -e pci -e ena). When it says nothing, detach the interface (aws ec2 detach-network-interface) and run garrison apply again: the same one is attached anew. A reboot finds it too.',
      retry: true,
    },
    'lni.not-on-outpost': {
      meaning: 'The subnet is on no Outpost, and local network interfaces are on Outposts servers alone.',
      remedy:
        'Give uplinks.NAME.lni.subnet a subnet of the Outposts server, or take uplinks.NAME.lni out of the document of this host.',
    },
    'lni.other-index': {
      meaning: 'The instance has its local network interface already, at another device index.',
      remedy: 'Give uplinks.NAME.lni.deviceIndex the index that it has; an instance has one such interface.',
    },
    'lni.subnet-index': {
      meaning:
        'The subnet has its local network interfaces at another device index; that is one for all its hosts.',
      remedy: 'Give uplinks.NAME.lni.deviceIndex the index of the subnet.',
    },
    'peer.refused': {
      meaning: 'The certificate that a peer showed is not one that this host trusts.',
      remedy:
        'See garrison fleet status there for its certificate. Past its time or revoked, it has to join again: garrison fleet invite here, garrison fleet join there.',
    },
    'plan.changed': {
      meaning: 'Between plan and first write the host changed, so the step was not begun.',
      remedy: 'Run garrison plan to see what is so now.',
      retry: true,
    },
    'plan.other-instance': {
      meaning: 'The desired document names another host, as it does in a copied disk or image.',
      remedy: 'If this host is meant, correct host.instance in the desired document to {observed}.',
    },
    'plan.stuck': {
      meaning: 'The same step was performed three times for the same reason and changed nothing.',
      remedy:
        'See garrison why and garrison journal for what it did each time; something else may be undoing it.',
    },
    'report.none-yet': {
      meaning: 'The daemon has not yet made a report.',
      remedy: 'Ask again in a few seconds; garrison report --watch waits for it.',
      retry: true,
    },
    'probe.no-link': {
      meaning: 'An interface cannot be measured: it is not there, is down, or has no carrier.',
      remedy:
        'See ip -brief link and garrison plan uplinks; an uplink is configured first, and then measured.',
    },
    'request.invalid': {
      meaning: 'A verb was given arguments that it does not know or that do not fit.',
      remedy: 'See garrison {verb} --help.',
    },
    'request.no-such-drive': {
      meaning: 'No drive has the name or serial that was given, or several have.',
      remedy: 'See garrison drives for their names, garrison drives --json for whole serials.',
    },
    'request.no-such-part': {
      meaning:
        'The VM has no disk, NIC or snapshot, or libvirt no pool or volume, of the name that was given.',
      remedy:
        'See garrison vm show and garrison vm snapshot list for what the VM has, virsh vol-list for what is in a pool.',
    },
    'request.no-such-vm': {
      meaning: 'No VM has the name, UUID, pattern or tag that was given. Nothing was done to any other.',
      remedy: 'See garrison vm list for their names; a name that looks strange is safer given by its UUID.',
    },
    'request.too-large': {
      meaning: 'A request to the root side was larger than any verb needs.',
      remedy: 'Send the arguments of the verb as one small JSON object.',
    },
    'request.unknown-verb': {
      meaning: 'There is no such verb.',
      remedy: 'See garrison --help for all of them.',
    },
    'root.encrypted': {
      meaning: 'The root filesystem stands on an encrypted device (LUKS), which Garrison does not grow.',
      remedy: 'Grow it by hand (cryptsetup resize, then the filesystem), or set root.grow to false.',
    },
    'root.group-incomplete': {
      meaning:
        'The volume group of the root filesystem misses a physical volume, so LVM refuses to change it.',
      remedy: 'See which one with vgs and pvs; bring its drive back or remove it (vgreduce --removemissing).',
    },
    'root.mbr-limit': {
      meaning: 'The partition table of the root disk is an MBR, which cannot address more than 2 TiB of it.',
      remedy:
        'Convert it to GPT in a maintenance window (sgdisk --mbrtogpt, then reinstall the boot loader), or set root.grow to false.',
    },
    'root.partition-behind': {
      meaning:
        'The free room of the root disk lies behind another partition, so the root partition cannot reach it.',
      remedy: 'Move or remove that partition if it is not needed, or set root.grow to false.',
    },
    'root.raid': {
      meaning: 'The root filesystem stands on a RAID array, which Garrison does not grow.',
      remedy: 'Grow the members and the array by hand (mdadm --grow --size=max), or set root.grow to false.',
    },
    'root.read-only': {
      meaning: 'The root filesystem is read-only, so nothing on it can be changed.',
      remedy:
        'Look for disk errors in journalctl -k; when the filesystem is sound, mount -o remount,rw / and run garrison apply again.',
    },
    'root.several-devices': {
      meaning:
        'The root filesystem is one btrfs over several devices; which of them is to grow is not for Garrison to say.',
      remedy: 'Grow them by hand (btrfs filesystem resize DEVID:max /), or set root.grow to false.',
    },
    'root.table-unknown': {
      meaning:
        'The partition table of the root disk is of a kind, or has contents, that Garrison does not know how to grow.',
      remedy: 'Look at it with fdisk -l; grow the partition by hand, or set root.grow to false.',
    },
    'root.thin': {
      meaning:
        'The root filesystem is on a thin LVM volume, whose size says nothing of the room on its disk.',
      remedy:
        'Extend the thin pool and the volume by hand, minding the room in the pool, or set root.grow to false.',
    },
    'root.unsupported': {
      meaning: 'The root filesystem stands on something that Garrison cannot grow.',
      remedy: 'The message names it; grow it by hand, or set root.grow to false.',
    },
    'shell.not-begun': {
      meaning: 'A shell was to be opened on the host, and could not be begun there.',
      remedy:
        'See journalctl -u garrison-operate on that host; where systemd itself does not answer, only its console helps.',
    },
    'shell.off': {
      meaning: 'The document of the host does not let anybody open a shell over the fleet.',
      remedy:
        'On that host, as root, turn fleet.shell on in /etc/garrison/host.yaml; docs/usage/security.md says what that means.',
    },
    'software.held': {
      meaning: 'A package is on hold (apt-mark hold), so apt does not install it.',
      remedy: 'Find out who holds it and why (apt-mark showhold); apt-mark unhold releases it.',
    },
    'software.masked': {
      meaning: 'A unit is masked: somebody made it unable to start, on purpose.',
      remedy: 'Find out why; systemctl unmask releases it. Garrison never unmasks.',
    },
    'software.not-offered': {
      meaning: 'A package that the document names is in no repository of this host.',
      remedy:
        'Mend its name in software.packages, or configure the repository that has it; Garrison adds none.',
    },
    'software.unknown-distribution': {
      meaning: 'Garrison does not know the package names of this distribution or architecture.',
      remedy:
        'Use Debian 12, Ubuntu 24.04, Rocky, RHEL or AlmaLinux 9, or Amazon Linux 2023, on x86-64 or arm64; or leave software out of the document.',
    },
    'template.unknown': {
      meaning: 'No template has the name that was given, or there is no such file.',
      remedy:
        'See garrison template list for those that are there; your own belong in /etc/garrison/templates, each ending in .yaml.',
    },
    'undo.damaged': {
      meaning:
        'What was saved before a change to the network cannot be read, so it cannot be put back by itself.',
      remedy:
        'Look at the file named in the message: it names each file with its content in base64. Put them back by hand, then remove it.',
    },
    'undo.incomplete': {
      meaning: 'A change to the network could not be undone whole.',
      remedy:
        'See garrison network pending and journalctl -u garrison-network-undo for what failed; mend that, then run garrison network undo.',
      retry: true,
    },
    'undo.nothing-pending': {
      meaning: 'No change to the network waits to be confirmed.',
      remedy: 'See garrison network pending for what became of the last one.',
    },
    'undo.pending': {
      meaning:
        'An earlier change to the network is neither confirmed nor undone yet, and only one may be so at a time.',
      remedy:
        'See garrison network pending; keep it with garrison network confirm, undo it with garrison network undo, or wait for its deadline.',
      retry: true,
    },
    'undo.unarmed': {
      meaning: 'The undo of a change to the network could not be made ready, so the change was not begun.',
      remedy:
        'Let the undo be started (systemctl unmask garrison-network-undo.service garrison-network-undo-at-stop.service, then systemctl enable garrison-network-undo.service), then run garrison apply again.',
    },
    'undo.undone': {
      meaning:
        'A change to the network was not confirmed by its deadline, so the old configuration was put back.',
      remedy:
        'Mend what the message names in the desired document or in the network. If the change is right though nobody can testify, apply again and type garrison network confirm from a second session.',
    },
    'uplinks.absent': {
      meaning: 'No interface of the host is the one that the document means.',
      remedy:
        'See ip -details link for the MACs that are there; plug it in, attach it, or correct uplinks.NAME.match.',
    },
    'uplinks.ambiguous': {
      meaning: 'Several interfaces of the host have the MAC that the document names.',
      remedy:
        'Give one of them back its own MAC (ip -details link shows it as permaddr), then run garrison plan again.',
    },
    'uplinks.backend-down': {
      meaning: 'The program that configures the interfaces of this host is enabled, and does not run.',
      remedy: 'See systemctl status -- {unit} and journalctl -u {unit} for why; start it.',
      retry: true,
    },
    'uplinks.enslaved': {
      meaning: 'The interface is a port of a bridge or bond, which would be taken apart.',
      remedy: 'Take {name} out of it yourself, or leave the uplink out of the document.',
    },
    'uplinks.file-in-front': {
      meaning: 'A file of somebody else comes before that of Garrison, and systemd-networkd takes the first.',
      remedy: 'Look what {file} is for; rename it so that it comes after 05-garrison, or remove it.',
    },
    'uplinks.index-unknown': {
      meaning: 'The metadata of the instance do not tell which interface is attached at the device index.',
      remedy:
        'See that it is attached (EC2 console) and that 169.254.169.254 answers; or name the interface by match.mac.',
      retry: true,
    },
    'uplinks.name-taken': {
      meaning: 'The name that the interface of a VLAN gets is that of another interface.',
      remedy: 'Rename or remove {name}, or give the uplink another name in the document.',
    },
    'uplinks.no-backend': {
      meaning: 'Nothing on this host configures interfaces by files that Garrison can write.',
      remedy:
        'Install and enable systemd-networkd or NetworkManager, and let it take over the interfaces; then run garrison plan again.',
    },
    'vm.array-failed': {
      meaning: 'The files of the VM are on an array that has lost more members than it can do without.',
      remedy:
        'Write nothing. See garrison drives and garrison why array; the VM is started when the array is whole again.',
    },
    'vm.busy': {
      meaning:
        'libvirt is in the middle of something with this VM: it shuts down, is saved, moved or restored.',
      remedy:
        'Wait until it is done (garrison vm list); then run garrison plan again. One that stays at starting up was begun by a libvirtd that was killed: garrison vm start ends that and starts it.',
    },
    'vm.deadline': {
      meaning: 'A VM did not come to what was asked of it in time; it may yet.',
      remedy:
        'See what it does with garrison vm console. When it does not listen, its power can be cut: {command}.',
      retry: true,
    },
    'vm.declared': {
      meaning: 'The desired document declares the VM, and would have it made again as it was.',
      remedy:
        'Take {vm} out of the document first (garrison plan then shows what that means); or change it there.',
    },
    'vm.disk-elsewhere': {
      meaning:
        'The VM runs on another disk than the one that is declared, and what its guest wrote is there.',
      remedy:
        'Declare that disk by its path, or move the content back while the VM is off; Garrison leaves no disk behind.',
    },
    'vm.disk-foreign': {
      meaning:
        'A disk image leads to a file outside of the pools, so Garrison did not make it, and its guest could read that file.',
      remedy:
        'See qemu-img info for what it stands on; declare such a disk by its path if you know that it is right.',
    },
    'vm.disk-in-use': {
      meaning: 'Another VM has the disk. Two that write to one disk destroy what is on it.',
      remedy: 'See garrison vm show {by}. Detach it there first, or attach it to both with --read-only.',
    },
    'vm.disk-missing': {
      meaning: 'A disk that the VM has is not there, and a new one would not have its content.',
      remedy:
        'Put the file back, or restore it from a backup. To begin with a blank disk, undefine the VM first.',
    },
    'vm.disk-shrink': {
      meaning: 'The disk is larger than declared, and making it smaller would cut off what is at its end.',
      remedy: 'Declare the size that it has, or copy its content to a smaller disk yourself.',
    },
    'vm.disk-unowned': {
      meaning: 'A file is where a new disk shall be, and no record says that Garrison made it for this VM.',
      remedy: 'Move it away; or, if it is the disk of this VM: garrison vm take {vm} --from nobody.',
    },
    'vm.firmware': {
      meaning: 'This machine type cannot boot with the firmware that is declared.',
      remedy: 'On aarch64 declare uefi; bios is for x86_64 only.',
    },
    'vm.has-secrets': {
      meaning: 'The definition holds a password, which Garrison neither reads nor would write back.',
      remedy:
        'Take it out with virsh edit (a console by socket needs none), or make the change there yourself.',
    },
    'vm.image-unusable': {
      meaning: 'qemu-img cannot read the image as what it is declared to be.',
      remedy: 'See qemu-img info on it; declare the format that it has, or restore it from a backup.',
    },
    'vm.io-error': {
      meaning: 'The VM was halted by an error of its disk or because its volume is full.',
      remedy: 'Free room or mend the storage (garrison check); then let it go on with garrison vm resume.',
    },
    'vm.mac-taken': {
      meaning: 'A VM of this host has a MAC that another one was to have.',
      remedy:
        'To make another VM beside it, give it an identity of its own: garrison vm import … --new-identity; or name another MAC: --set nics.NAME.mac=…',
    },
    'vm.name-taken': {
      meaning: 'There is a VM of that name already.',
      remedy: 'Choose another name; garrison vm list shows those that are taken.',
    },
    'vm.network-missing': {
      meaning: 'A network or interface that the VM is attached to is not there or not active.',
      remedy: 'See virsh net-list --all and ip link; start it or correct the nics of the VM.',
    },
    'vm.no-log': {
      meaning:
        'There is no log of the VM: it was never started by QEMU on this host, or its log was removed.',
      remedy: 'See garrison vm events for what happens to it, and journalctl -u libvirtd -u virtqemud.',
    },
    'vm.not-clonable': {
      meaning: 'A disk of the VM is not a file that can be copied beside itself.',
      remedy:
        'Detach it for the while (garrison vm disk detach), clone, and attach it again; or copy it by its own means.',
    },
    'vm.not-defined': {
      meaning:
        'The VM runs and is not defined: it is gone when it ends, and nothing can be kept for its next start.',
      remedy: 'To keep it, save its definition (virsh dumpxml) and define it (virsh define); then try again.',
    },
    'vm.not-mounted': {
      meaning: 'What the files of VMs are on is not mounted, so they would be made on the wrong filesystem.',
      remedy: 'See garrison why volumes; or correct the path or mountpoint of the pool.',
    },
    'vm.owned-elsewhere': {
      meaning:
        'The record beside the disks says that this VM belongs to another host, which may be running it.',
      remedy:
        'Make sure that {host} can never start it again, and only then: garrison vm take {vm} --from {host}.',
    },
    'vm.owner-damaged': {
      meaning: 'The record of whom the VM belongs to says nothing that can be relied on.',
      remedy:
        'Find out which host ran it last. If it was this one, remove the highest owner-….json in the folder named.',
    },
    'vm.paused': {
      meaning: 'Somebody has paused the VM, and only they know why.',
      remedy: 'garrison vm resume lets it go on; or declare its power as kept.',
    },
    'vm.pool-differs': {
      meaning: 'libvirt knows this pool, or its path, as something else.',
      remedy: 'See virsh pool-list --all --details; declare the pool under the name and path that it has.',
    },
    'vm.pool-in-the-way': {
      meaning: 'Something that is no folder is where the pool shall be.',
      remedy: 'Move it away, or give the pool another path.',
    },
    'vm.read-only': {
      meaning: 'The filesystem of the pool is mounted read-only, as after an error.',
      remedy: 'See journalctl -k for the error; save what is on it before you repair it.',
    },
    'vm.uuid-differs': {
      meaning: 'The VM has another UUID than the one that is declared, and a UUID cannot be changed.',
      remedy: 'Declare the UUID that it has, or none.',
    },
    'vm.uuid-taken': {
      meaning: 'Another VM has the UUID that this one would get.',
      remedy:
        'If it is this VM under a former name, rename it back (virsh domrename) or declare it as it is called now. To import another VM beside it: garrison vm import … --new-identity.',
    },
    'vm.wrong-power': {
      meaning: 'What the VM does at this moment does not allow what was asked of it.',
      remedy: 'To go on: {command}.',
    },
    'vm.xml-mismatch': {
      meaning:
        'The definition does not survive being written and read, so what libvirt would define is not what is declared.',
      remedy: 'Report it with the output of garrison plan --json; nothing was defined.',
    },
    'vm.xml-refused': {
      meaning: 'What is declared cannot be written as domain XML.',
      remedy: 'Correct the key that the message names; garrison schema explains each.',
    },
    'vm.xml-unread': {
      meaning: 'libvirt has a definition of the VM that Garrison cannot read.',
      remedy: 'See virsh dumpxml --inactive for it; what is not read is never written.',
    },
    'vmnet.address-taken': {
      meaning: 'The slice of a network holds an address of this host or the router of the LAN.',
      remedy:
        'Give the network a slice of the LAN in which nobody else has an address: vmnets.networks in the desired document.',
    },
    'vmnet.second-mac-unproved': {
      meaning:
        'VMs with MACs of their own are to be put on an interface of which nobody has proved that it lets them pass.',
      remedy:
        'Run garrison network probe on it. A local network interface of an Outpost drops such frames: use mode routed or nat there.',
    },
    'vmnet.slice-outside-lan': {
      meaning: 'The addresses of a routed network are not among those of the LAN that its uplink is on.',
      remedy:
        'Take a slice of the LAN (ip address shows its prefix), or set proxy to false when the router of the LAN has a route to it; else use mode nat.',
    },
    'vmnet.slice-too-large': {
      meaning: 'A routed network has more addresses than are answered for one by one.',
      remedy:
        'Take a slice of at most 1024 addresses, or set proxy to false and give the router of the LAN a route to it.',
    },
    'vmnet.subnet-on-lan': {
      meaning:
        'The addresses of a nat network are also those of the LAN, so one of the two could not be reached.',
      remedy: 'Give the network a private subnet that is used nowhere near this host, or use mode routed.',
    },
    'vmnet.uplink-missing': {
      meaning: 'The interface that a network leads to is not there.',
      remedy:
        'See ip link and garrison status for the uplinks; a VLAN (UPLINK.VLAN) must be declared there too. VMs that run keep running.',
    },
    'vmnet.uplink-needed': {
      meaning:
        'A VM is to have an interface whole by which the host itself sends what no other route leads elsewhere.',
      remedy:
        'Let another uplink carry the default route of the host (uplinks.NAME.defaultRoute), or use mode routed or nat.',
    },
    'vmnet.xml-mismatch': {
      meaning: 'A definition of a network would not say what it should, so it is not given to libvirt.',
      remedy: 'Report it with the output of garrison plan --json; nothing was changed.',
    },
    'vmnet.xml-unreadable': {
      meaning: 'The definition that libvirt has of a network cannot be read.',
      remedy: 'Look at it with virsh net-dumpxml NAME and mend it there.',
    },
    'volumes.array-not-blank': {
      meaning: 'The array holds something, so no volume group may be made on it.',
      remedy:
        'Look what is on it (wipefs --no-act, pvs, lvmdevices). If nothing of it is needed, clear it yourself; then run garrison plan.',
    },
    'volumes.content-unknown': {
      meaning: 'A volume may hold something that Garrison did not put there, so it is not formatted.',
      remedy:
        'Look what is on it. To let Garrison format it, and lose what it holds: wipefs --all /dev/{volume}, then lvchange --addtag garrison.unformatted {volume}.',
    },
    'volumes.filesystem-differs': {
      meaning: 'A volume holds another filesystem than the document asks for.',
      remedy:
        'Name in the document the filesystem that is there, or save its content, remove the volume (lvremove {volume}) and run garrison apply.',
    },
    'volumes.folder-in-use': {
      meaning: 'The content of a folder is to be moved onto a volume, and something is using it.',
      remedy: 'Stop what is named (or unmount it), then run garrison apply again.',
      retry: true,
    },
    'volumes.folder-not-empty': {
      meaning: 'A volume would be mounted over a folder that has content, and would hide it.',
      remedy:
        'Empty {path}, or set onContent: move for a volume that is still to be made: its content is then copied onto the volume and kept beside it.',
    },
    'volumes.group-elsewhere': {
      meaning: 'A volume group of the wanted name is there already, and not on the array alone.',
      remedy: 'Give the document another volumes.group, or rename that group with vgrename.',
    },
    'volumes.group-partial': {
      meaning: 'A physical volume of the volume group is missing, so LVM changes nothing in it.',
      remedy: 'See garrison drives and vgs; bring the missing device back.',
    },
    'volumes.in-use': {
      meaning: 'A volume is marked as not formatted yet, and something has it open.',
      remedy: 'See lsblk and garrison journal for what uses it; end that, then run garrison apply again.',
      retry: true,
    },
    'volumes.mount-refused': {
      meaning: 'A volume cannot be mounted at the path that the document names.',
      remedy: 'Choose another path for it.',
    },
    'volumes.mount-taken': {
      meaning: 'Something else is mounted where a volume shall be.',
      remedy: 'Unmount {path} and remove what mounts it, or choose another path.',
    },
    'volumes.name-refused': {
      meaning: 'LVM does not take this name, or has given it to something else.',
      remedy: 'Choose another name in the document.',
    },
    'volumes.no-room': {
      meaning: 'A volume does not fit.',
      remedy: 'Change shares and sizes in the document; vgs and lvs show what is taken by what.',
    },
    'volumes.owner-unknown': {
      meaning: 'The owner or group of a mounted folder does not exist on this host.',
      remedy: 'Make the account, or declare the package that brings it under software.packages.',
    },
    'volumes.shrink': {
      meaning: 'A volume is larger than the document asks for; Garrison never makes one smaller.',
      remedy: 'Write the size that it has, or save its content and make it anew yourself.',
    },
    'volumes.unit-foreign': {
      meaning: 'Something else is set up to be mounted where a volume shall be, or forbids it.',
      remedy:
        'Remove that line of /etc/fstab, or that unit (unmask it with systemctl unmask); Garrison writes a mount unit of its own.',
    },
    'wait.deadline': {
      meaning: 'What a step waited for did not come about in time.',
      remedy: 'See who holds it in the message; when it is free, run garrison apply again.',
      retry: true,
    },
  }) as const satisfies Record<string, ProblemEntry>

/** A code of the table. */
export type ProblemCode = keyof ReturnType<typeof table>

let made: Readonly<Record<ProblemCode, ProblemEntry>> | undefined

/**
 * Every code that an error, a blocked step or a refusal can carry. Ordered by prefix.
 * `{name}` in a remedy is replaced by the value of that name in the error's details.
 * Made at the first problem: a start that has none does not wait for it.
 */
export function problems(): Readonly<Record<ProblemCode, ProblemEntry>> {
  made ??= table()
  return made
}

/** A problem as it is sent and stored. */
export interface ProblemReport {
  readonly code: ProblemCode
  readonly message: string
  readonly remedy: string
  readonly retry: boolean
  readonly details?: Readonly<Record<string, unknown>>
}

/** The remedy of a code with `{name}` filled in from details. */
export const remedyOf = (code: ProblemCode, details: Readonly<Record<string, unknown>> = {}): string =>
  problems()[code].remedy.replace(/\{(\w+)\}/g, (whole, name: string) =>
    name in details ? String(details[name]) : whole,
  )

/** The only error that crosses a boundary: `message` says what happened to what, `remedy` what a person does next. */
export class HostError extends Error {
  override readonly name = 'HostError'
  readonly code: ProblemCode
  readonly remedy: string
  readonly retry: boolean
  readonly details: Readonly<Record<string, unknown>>

  constructor(
    code: ProblemCode,
    message: string,
    options: { readonly details?: Readonly<Record<string, unknown>>; readonly cause?: unknown } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    const entry: ProblemEntry = problems()[code]
    this.code = code
    this.details = options.details ?? {}
    this.remedy = remedyOf(code, this.details)
    this.retry = entry.retry ?? false
  }

  /** The same as plain data. */
  report(): ProblemReport {
    const { code, message, remedy, retry, details } = this
    return { code, message, remedy, retry, ...(Object.keys(details).length > 0 && { details }) }
  }
}

/** Any thrown value as a report; what is not a HostError is a defect and says so. */
export function problemOf(error: unknown): ProblemReport {
  if (error instanceof HostError) return error.report()
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return new HostError('agent.defect', message, {
    details: error instanceof Error && error.stack ? { stack: error.stack } : {},
  }).report()
}
