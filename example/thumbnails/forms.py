"""The form that takes a picture."""

from __future__ import annotations

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.template.defaultfilters import filesizeformat

from thumbnails.models import Job
from thumbnails.pictures import BadPictureError, measure

__all__ = ["MAX_UPLOAD_BYTES", "PictureForm"]

MAX_UPLOAD_BYTES = 10 * 1024 * 1024


class PictureForm(forms.Form):
    """Asks for a picture, and looks into it: the name and the type that a browser sends prove nothing."""

    picture = forms.FileField(
        label="Picture",
        widget=forms.FileInput(attrs={"accept": "image/jpeg,image/png,image/webp,image/gif"}),
        error_messages={"required": "Choose a picture first.", "empty": "This file is empty."},
    )

    def clean_picture(self) -> UploadedFile[bytes]:
        """Return the upload, and keep its size in pixels for ``new_job``."""
        upload: UploadedFile[bytes] = self.cleaned_data["picture"]
        if (upload.size or 0) > MAX_UPLOAD_BYTES:
            limit, size = filesizeformat(MAX_UPLOAD_BYTES), filesizeformat(upload.size or 0)
            raise forms.ValidationError(f"This file is too large: {size}. The most is {limit}.")
        try:
            self.width, self.height = measure(upload)
        except BadPictureError as error:
            raise forms.ValidationError(str(error)) from error
        return upload

    def new_job(self) -> Job:
        """Return a job for the picture, whose file is stored and whose row is not saved yet."""
        upload: UploadedFile[bytes] = self.cleaned_data["picture"]
        name = (upload.name or "picture")[-100:]
        job = Job(name=name, size_bytes=upload.size or 0, width=self.width, height=self.height)
        job.picture.save(name, upload, save=False)
        return job
