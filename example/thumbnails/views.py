"""The pages about thumbnails: plain synchronous views, which hand the work to a worker process and return."""

from __future__ import annotations

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from thumbnails.forms import MAX_UPLOAD_BYTES, PictureForm
from thumbnails.models import Job
from thumbnails.snapshots import job_state, latest_jobs
from thumbnails.tasks import hand_over

__all__ = ["job_list", "job_page", "retry", "thumbnail"]


@require_http_methods(["GET", "POST"])
def job_list(request: HttpRequest) -> HttpResponse:
    """List the latest jobs; a posted picture becomes a new one."""
    form = PictureForm(request.POST, request.FILES) if request.method == "POST" else PictureForm()
    if form.is_valid():
        job = form.new_job()
        with transaction.atomic():
            job.save()
            hand_over(job)
        return redirect("thumbnails:job", job=job.pk)
    context = {"form": form, "max_upload_bytes": MAX_UPLOAD_BYTES, "jobs": latest_jobs()}
    return render(request, "thumbnails/jobs.html", context)


@require_GET
def job_page(request: HttpRequest, job: int) -> HttpResponse:
    """Show one job."""
    found = get_object_or_404(Job, pk=job)
    return render(request, "thumbnails/job.html", {"job": found, "jobs": [job_state(found)]})


@require_POST
def retry(request: HttpRequest, job: int) -> HttpResponse:
    """Try again what has failed."""
    found = get_object_or_404(Job, pk=job)
    if job_state(found)["state"] == "failed":
        hand_over(found)
    return redirect("thumbnails:job", job=job)


@require_GET
def thumbnail(request: HttpRequest, job: int, size: int) -> HttpResponse:
    """Send a finished thumbnail. The picture itself is never sent: what strangers upload is not handed out as it is."""
    found = get_object_or_404(Job, pk=job)
    if size not in found.sizes:
        raise Http404("no such size")
    try:
        return HttpResponse(found.path_of(size).read_bytes(), content_type="image/webp")
    except FileNotFoundError as error:
        raise Http404("not made yet") from error
