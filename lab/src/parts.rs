//! Uploads in parts: as with AWS, one that was begun with one session of a role may be gone on with in the
//! next. The file-system backend would hold it against the access key that began it. It owns nothing else
//! that S3 does, and passes that on.

use s3s::{S3, S3Request, S3Response, S3Result, dto::*};

/// The backend behind it.
pub(crate) struct Parts(pub(crate) s3s_fs::FileSystem);

/// What is passed on as it comes, and what by nobody in particular: access was checked before.
macro_rules! passed_on {
    (
        as_it_comes { $($method:ident: $input:ident => $output:ident,)+ }
        by_nobody { $($of_parts:ident: $asked:ident => $answered:ident,)+ }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Parts {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.0.$method(request).await
            })+

            $(async fn $of_parts(
                &self,
                mut request: S3Request<$asked>,
            ) -> S3Result<S3Response<$answered>> {
                request.credentials = None;
                self.0.$of_parts(request).await
            })+
        }
    };
}

passed_on! {
    as_it_comes {
    create_bucket: CreateBucketInput => CreateBucketOutput,
    head_bucket: HeadBucketInput => HeadBucketOutput,
    list_buckets: ListBucketsInput => ListBucketsOutput,
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput,
    put_object: PutObjectInput => PutObjectOutput,
    get_object: GetObjectInput => GetObjectOutput,
    head_object: HeadObjectInput => HeadObjectOutput,
    copy_object: CopyObjectInput => CopyObjectOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput,
    list_objects: ListObjectsInput => ListObjectsOutput,
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    }
    by_nobody {
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    upload_part: UploadPartInput => UploadPartOutput,
    list_parts: ListPartsInput => ListPartsOutput,
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput,
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput,
    }
}
