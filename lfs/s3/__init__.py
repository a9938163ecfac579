"""A shelf in a bucket: Amazon S3 or a server that speaks like it. The only rooms that know boto3.

shelf       the ObjectStore: one object, one call
  writing   a large object in, by parts that are sent while the next one is gathered
  parts     uploads in parts that others send, also from other processes
  reading   bytes out, going on after a broken connection
  leaves    URLs that clients may use themselves
  probing   what the bucket enforces, found by trying
bucket      the connection: credentials, timeouts, tries, and its refusals in our words
gathering   bytes on their way to the bucket, within a bound on memory
"""
